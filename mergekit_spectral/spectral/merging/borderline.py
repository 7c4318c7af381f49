"""Borderline entries: those for which float32's rounding could have decided.

Pruning decides between an entry and zero, and an election of signs between an entry and another
one. Where the decision depends on the last digits, a float32 projection may decide differently from
the definition, and each such difference changes the merged delta by a whole entry: with errors of
3e-7 per entry, by 2e-4 to 4e-3 in all. Such places are few. They are noted while everything else is
merged; then their values are computed in float64 and decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mergekit_spectral.spectral.merging.averaging import without_cancelled_votes
from mergekit_spectral.spectral.merging.entries import Entries, Rows, inverse_of
from mergekit_spectral.spectral.merging.thresholds import Pruning, Threshold
from mergekit_spectral.spectral.numerics import TIE

_RELATIVE = 16 * torch.finfo(torch.float32).eps
"""A float32 sum's error relative to its own size, in addition to the one in `Entries.errors`."""

_WORK = 1 << 24
"""Products for each input's exact values, from columns in all parts of the deltas: half a second.
Where they do not suffice, the largest of the noted entries are decided and the others stay as they
are."""

_UNIT_WORK = 1 << 31
"""Multiplications for the exact units of one input: a tenth of a second."""


class Borderline:
    """Places to be decided again.

    Args:
        entries: of T inputs. Nothing is noted if their values are exact.
        pruning: of these entries, whose thresholds are exact when prunings are noted.
        votes: the T weights with which a sign is elected; None if none is.
    """

    def __init__(self, entries: Entries, pruning: Pruning, votes: Sequence[float] | None):
        self.entries = entries
        self.pruning = pruning
        self.votes = votes
        self.at_most = max(1, _WORK // entries.work)
        self._noted: list[tuple[Tensor, Rows]] = []

    def note_prunings(
        self, places: slice | Tensor, rows: Rows, magnitudes: Sequence[Tensor]
    ) -> None:
        """Note the places where an entry is no further from a threshold than its error.

        Args:
            places: of the flattened entries.
            rows: the entries there.
            magnitudes: of the rows.
        """
        if rows.errors is None:
            return
        is_near: Tensor | None = None
        for t, threshold in self.pruning.thresholds_of_inputs:
            own = self._is_near(threshold, t, rows, magnitudes[t])
            is_near = own if is_near is None else is_near.logical_or_(own)
        if is_near is not None:
            self._note(places, rows, is_near)

    def note_elections(
        self,
        places: slice | Tensor,
        rows: Rows,
        pruned: Sequence[Tensor],
        total: Tensor,
        mass: Tensor,
    ) -> None:
        """Note the places where the sum of the votes, or a vote, is no larger than its error.

        Args:
            places: of the flattened entries.
            rows: the entries there.
            pruned: the entries that vote.
            total: the sum of the votes.
            mass: the sum of their magnitudes.
        """
        if rows.errors is None or self.votes is None:
            return
        error = sum(abs(w) * e for w, e in zip(self.votes, rows.errors, strict=True))
        is_close = (total.abs() <= _RELATIVE * mass + error).logical_and_(mass > 0)
        for values, band, own in zip(pruned, self.pruning.bands, rows.errors, strict=True):
            # With a threshold, an entry this small has been dropped, or noted as near it.
            if band.low is None:
                is_close.logical_or_((values.abs() <= own).logical_and_(values != 0))
        self._note(places, rows, is_close)

    def decided(self) -> tuple[Tensor, list[Tensor]] | None:
        """Decide about the noted places.

        Returns:
            The places of the flattened entries, n different indices, and what is left there of the
            inputs, T columns [n, 1] in float64. None if no place was noted.
        """
        if not self._noted:
            return None
        places = torch.cat([where for where, _ in self._noted])
        rows = Rows.joined([rows for _, rows in self._noted])
        # A place may be noted several times: before its thresholds were exact, in a pass that was
        # repeated with wider brackets, for pruning and for votes. Its rows are the same each time.
        once = _one_of_each(places)
        places, rows = places[once], rows.at(once)
        largest = rows.largest(self.at_most)
        places, rows = places[largest], rows.at(largest)

        columns = self.entries.shape[1]
        exact = self.entries.exact(places // columns, places % columns)
        # An input that has no part in a direction does not get one by rounding.
        exact = [torch.where(v == 0, 0, x) for v, x in zip(rows.values, exact, strict=True)]
        if self.pruning.thresholds:
            kept = self._kept(rows, exact, places // columns)
            exact = [torch.where(k, x, 0) for k, x in zip(kept, exact, strict=True)]
        if self.votes is not None:
            exact = without_cancelled_votes(exact, self.votes)
        return places, exact

    def _is_near(self, threshold: Threshold, t: int, rows: Rows, magnitudes: Tensor) -> Tensor:
        """Compare the distances of input t's magnitudes from a threshold to their errors.

        Returns:
            Truth values of the magnitudes' shape.
        """
        assert rows.errors is not None
        error = rows.errors[t]
        if rows.units is not None:
            error = error * rows.inverse_units[t].to(error.dtype)
        # The entry has this error, and so has the threshold, which is an entry too.
        close = (magnitudes - threshold.lower).abs_() <= 2 * error + _RELATIVE * threshold.lower
        return close.logical_and_(magnitudes > 0)

    def _kept(self, rows: Rows, exact: Sequence[Tensor], own_rows: Tensor) -> list[Tensor]:
        """Decide which of the noted entries are kept.

        Args:
            rows: the noted places.
            exact: their values in float64, T columns [n, 1].
            own_rows: the rows of the entries that they are in, [n].

        Returns:
            T columns [n, 1] of truth values.
        """
        rounded = rows.magnitudes()
        magnitudes = [x.abs() for x in exact]
        ties = [torch.full_like(x, TIE) for x in exact]
        if rows.units is not None:
            magnitudes, ties = self._in_exact_units(rows, rounded, magnitudes, own_rows)
        bands = self.pruning.bands
        kept = [
            torch.full_like(x, not band.empty, dtype=torch.bool)
            for x, band in zip(exact, bands, strict=True)
        ]
        for threshold in self.pruning.thresholds:
            limit = self._exact_threshold(threshold, rows, rounded, magnitudes)
            for band, m, tie, keep in zip(bands, magnitudes, ties, kept, strict=True):
                if threshold is band.low:
                    keep &= m >= limit * (1 - tie)
                if threshold is band.high:
                    keep &= m <= limit * (1 + tie)
        return kept

    def _in_exact_units(
        self,
        rows: Rows,
        rounded: Sequence[Tensor],
        exact: Sequence[Tensor],
        own_rows: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Divide exact values by their rows' units, and compute exactly the units that decide.

        A unit is the length of a row of rounded values. Its error is at most the length of their
        errors. It is far smaller where these are independent, as they are unless the delta is of
        low rank.

        Returns:
            T columns [n, 1] of magnitudes, and T columns [n, 1] of the relative differences that
            count as none: `TIE`, or more where exact units would take too long.
        """
        assert rows.errors is not None
        assert self.entries.errors is not None
        inverse = [own.double() for own in rows.inverse_units]
        lengths = [float(error.double().norm()) for error in self.entries.errors]
        off = [length * own for length, own in zip(lengths, inverse, strict=True)]
        magnitudes = [x * own for x, own in zip(exact, inverse, strict=True)]
        ties = [torch.full_like(m, TIE) for m in magnitudes]
        distances = [torch.full_like(m, torch.inf) for m in magnitudes]
        for threshold in self.pruning.thresholds:
            least, limit, most = (
                self._exact_threshold(
                    threshold,
                    rows,
                    rounded,
                    [m * (1 + side * o) for m, o in zip(magnitudes, off, strict=True)],
                )
                for side in (-1, 0, 1)
            )
            for t in self.pruning.inputs_of[threshold]:
                m = magnitudes[t]
                may_decide = (m * (1 + off[t]) >= least) & (m * (1 - off[t]) <= most)
                distance = torch.where(may_decide, (m - limit).abs(), torch.inf)
                distances[t] = torch.minimum(distances[t], distance)
        most_rows = max(1, _UNIT_WORK // max(1, self.entries.unit_work))
        for t, distance in enumerate(distances):
            nearest, order = distance.flatten().sort()
            wanted = torch.unique(own_rows[order[nearest.isfinite()][:most_rows]])
            made = torch.isin(own_rows, wanted)
            if len(wanted):
                unit = self.entries.exact_units(t, wanted)
                unit = unit[torch.searchsorted(wanted, own_rows[made])]
                magnitudes[t][made] = exact[t][made] * inverse_of(unit)[:, None]
            errors = rows.errors[t].double() * inverse[t]
            ties[t] = torch.where(made[:, None] | distance.isinf(), TIE, errors.clamp(min=TIE))
        return magnitudes, ties

    def _exact_threshold(
        self,
        threshold: Threshold,
        rows: Rows,
        rounded: Sequence[Tensor],
        exact: Sequence[Tensor],
    ) -> float:
        """Return a threshold in float64.

        As many entries are below it as before. Of the entries near it, it is the one whose rank is
        that of the rounded threshold.
        """
        below, candidates = 0, []
        for t in self.pruning.inputs_of[threshold]:
            is_near = self._is_near(threshold, t, rows, rounded[t])
            below += int((is_near & (rounded[t] < threshold.lower)).sum())
            candidates.append(exact[t][is_near])
        near_it = torch.cat(candidates)
        rank = below + threshold.rank_in_ties
        # Where not all entries equal to the threshold were noted, it is their common value.
        found = 1 <= rank <= len(near_it)
        return float(near_it.kthvalue(rank).values) if found else threshold.lower

    def _note(self, where: slice | Tensor, rows: Rows, chosen: Tensor) -> None:
        places = chosen.flatten().nonzero().squeeze(1)
        if not len(places):
            return
        noted = rows.at(places)
        if len(places) > self.at_most:
            largest = noted.largest(self.at_most)
            places, noted = places[largest], noted.at(largest)
        here = places + where.start if isinstance(where, slice) else where[places]
        self._noted.append((here, noted))


def _one_of_each(places: Tensor) -> Tensor:
    in_order, indices = places.sort()
    new = torch.ones_like(in_order, dtype=torch.bool)
    new[1:] = in_order[1:] != in_order[:-1]
    return indices[new]
