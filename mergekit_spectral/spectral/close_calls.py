"""Decisions that float32's rounding could have made.

A pruning and a sign election decide between an entry and nothing, or another one. Where that hangs
on the last digits, a float32 projection may call it differently from the definition, and each such
call changes the merged delta by a whole entry: with errors of 3e-7 per entry, 2e-4 to 4e-3 in all.
Such places are few. Their values are made again in float64, and decided by those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mergekit_spectral.spectral.consensus import without_cancelled_votes
from mergekit_spectral.spectral.entries import Entries, Rows, inverse_of
from mergekit_spectral.spectral.precision import TIE
from mergekit_spectral.spectral.selection import Band, Threshold

Merge = Callable[[list[Tensor]], Tensor]
"""From T tensors of any one shape to one of that shape, place by place. It leaves them alone."""

Store = Callable[["slice | Tensor", Tensor], None]
"""Takes places of the flattened [rows, columns], as a slice or as indices, and their new values."""

_RELATIVE = 16 * torch.finfo(torch.float32).eps
"""A float32 sum's error relative to its own size, beside the one that `Entries.errors` gives."""

_WORK = 1 << 24
"""Products an input for exact values, from columns all over the deltas: half a second. Where they
do not suffice, the largest of the noted entries are decided and the others stay as they are."""

_UNIT_WORK = 1 << 31
"""Multiplications for exact units of one input: a tenth of a second."""


class CloseCalls:
    """Places to be decided again, noted while the others are merged.

    Args:
        entries: of T inputs. Nothing is noted where their values are exact.
        bands: what is kept of each input; inputs may share a threshold.
        votes: the T weights with which a sign is elected; None if none is.
    """

    def __init__(self, entries: Entries, bands: Sequence[Band], votes: Sequence[float] | None):
        self.entries = entries
        self.bands = bands
        self.thresholds = list(dict.fromkeys(t for band in bands for t in band.thresholds))
        self.votes = votes
        self.at_most = max(1, _WORK // entries.work)
        self._noted: list[tuple[Tensor, Rows]] = []

    def note_prunings(
        self, where: slice | Tensor, rows: Rows, magnitudes: Sequence[Tensor]
    ) -> None:
        """Note the places where an entry is as near a threshold, which is exact, as its error."""
        if rows.errors is None or not self.thresholds:
            return
        self._note(where, rows, _any(self._near_thresholds(rows, magnitudes)))

    def note_elections(
        self,
        where: slice | Tensor,
        rows: Rows,
        pruned: Sequence[Tensor],
        total: Tensor,
        mass: Tensor,
    ) -> None:
        """Note the places where the sum of the votes, or a vote, is as small as its error.

        Args:
            where: the places.
            rows: their entries.
            pruned: the entries that vote.
            total: the sum of the votes.
            mass: the sum of their magnitudes.
        """
        if rows.errors is None or self.votes is None:
            return
        error = sum(abs(w) * e for w, e in zip(self.votes, rows.errors, strict=True))
        near = (total.abs() <= _RELATIVE * mass + error).logical_and_(mass > 0)
        for values, band, own in zip(pruned, self.bands, rows.errors, strict=True):
            # With a threshold, what is as small has been pruned, or noted as near that.
            if not band.low.j:
                near.logical_or_((values.abs() <= own).logical_and_(values != 0))
        self._note(where, rows, near)

    def decide(self, merge: Merge, store: Store) -> None:
        """Merge the noted places by values in float64."""
        if not self._noted:
            return
        places = torch.cat([where for where, _ in self._noted])
        rows = _joined([rows for _, rows in self._noted])
        once = _first_of_each(places)
        places, rows = places[once], rows.places(once)
        largest = rows.largest(self.at_most)
        places, rows = places[largest], rows.places(largest)

        columns = self.entries.shape[1]
        exact = self.entries.exact(places // columns, places % columns)
        # An input that has no part in a direction gets none by being looked at more closely.
        exact = [torch.where(v == 0, 0, x) for v, x in zip(rows.values, exact, strict=True)]
        if self.thresholds:
            kept = self._kept(rows, exact, places // columns)
            exact = [torch.where(k, x, 0) for k, x in zip(kept, exact, strict=True)]
        if self.votes is not None:
            exact = without_cancelled_votes(exact, self.votes)
        store(places, merge(exact))

    def _near(self, threshold: Threshold, t: int, rows: Rows, magnitudes: Tensor) -> Tensor:
        """Tell where input t's magnitudes are as near a threshold as their error."""
        assert rows.errors is not None
        if threshold not in self.bands[t].thresholds:
            return torch.zeros_like(magnitudes, dtype=torch.bool)
        error = rows.errors[t]
        if rows.units is not None:
            error = error * inverse_of(rows.units[t]).to(error.dtype)
        # The entry's own, and as much of the threshold, which is an entry too.
        close = (magnitudes - threshold.lower).abs_() <= 2 * error + _RELATIVE * threshold.lower
        return close.logical_and_(magnitudes > 0)

    def _near_thresholds(self, rows: Rows, magnitudes: Sequence[Tensor]) -> list[Tensor]:
        return [
            self._near(threshold, t, rows, magnitudes[t])
            for t, band in enumerate(self.bands)
            for threshold in band.thresholds
        ]

    def _kept(self, rows: Rows, exact: Sequence[Tensor], own_rows: Tensor) -> list[Tensor]:
        """Tell which of the noted entries are kept.

        Args:
            rows: the noted places.
            exact: their values in float64, T columns [n, 1].
            own_rows: the rows that they are in, [n].

        Returns:
            T truth values, [n, 1].
        """
        rounded = rows.magnitudes()
        magnitudes = [x.abs() for x in exact]
        ties = [torch.full_like(x, TIE) for x in exact]
        if rows.units is not None:
            magnitudes, ties = self._in_exact_units(rows, rounded, magnitudes, own_rows)
        kept = [
            torch.full_like(x, not band.empty, dtype=torch.bool)
            for x, band in zip(exact, self.bands, strict=True)
        ]
        for threshold in self.thresholds:
            limit = self._exact_threshold(threshold, rows, rounded, magnitudes)
            for band, m, tie, keep in zip(self.bands, magnitudes, ties, kept, strict=True):
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
        """Divide exact values by their rows' units, and make exact those units that decide.

        A unit is the length of a row of rounded values. It is off by at most the length of their
        errors, and by far less where these are independent, as they are unless the delta is of low
        rank.

        Returns:
            T columns [n, 1] each: the magnitudes, and the relative difference that counts as none,
            which is `TIE`, or more where to make the unit exact would take too long.
        """
        assert rows.units is not None
        assert rows.errors is not None
        assert self.entries.errors is not None
        units = [unit.double() for unit in rows.units]
        lengths = [float(error.double().norm()) for error in self.entries.errors]
        off = [length * inverse_of(unit) for length, unit in zip(lengths, units, strict=True)]
        magnitudes = [x * inverse_of(unit) for x, unit in zip(exact, units, strict=True)]
        ties = [torch.full_like(m, TIE) for m in magnitudes]
        near = [torch.full_like(m, torch.inf) for m in magnitudes]
        for threshold in self.thresholds:
            least, limit, most = (
                self._exact_threshold(
                    threshold,
                    rows,
                    rounded,
                    [m * (1 + side * o) for m, o in zip(magnitudes, off, strict=True)],
                )
                for side in (-1, 0, 1)
            )
            for t, band in enumerate(self.bands):
                if threshold in band.thresholds:
                    m = magnitudes[t]
                    may_decide = (m * (1 + off[t]) >= least) & (m * (1 - off[t]) <= most)
                    distance = torch.where(may_decide, (m - limit).abs(), torch.inf)
                    near[t] = torch.minimum(near[t], distance)
        most_rows = max(1, _UNIT_WORK // self.entries.numel)
        for t, distance in enumerate(near):
            nearest, order = distance.flatten().sort()
            wanted = torch.unique(own_rows[order[nearest.isfinite()][:most_rows]])
            made = torch.isin(own_rows, wanted)
            if len(wanted):
                unit = self.entries.exact_units(t, wanted)
                unit = unit[torch.searchsorted(wanted, own_rows[made])]
                magnitudes[t][made] = exact[t][made] * inverse_of(unit)[:, None]
            errors = rows.errors[t].double() * inverse_of(units[t])
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

        As many entries lie below; among those near it, it is the one of the same rank as before.
        """
        near = [self._near(threshold, t, rows, m) for t, m in enumerate(rounded)]
        below = sum(
            int((n & (m < threshold.lower)).sum()) for n, m in zip(near, rounded, strict=True)
        )
        candidates = torch.cat([x[n] for x, n in zip(exact, near, strict=True)])
        rank = below + threshold.rank_in_ties
        # Where not all of those equal to it were noted, it is their common value.
        found = 1 <= rank <= len(candidates)
        return float(candidates.kthvalue(rank).values) if found else threshold.lower

    def _note(self, where: slice | Tensor, rows: Rows, near: Tensor) -> None:
        places = near.flatten().nonzero().squeeze(1)
        if not len(places):
            return
        noted = rows.places(places)
        if len(places) > self.at_most:
            largest = noted.largest(self.at_most)
            places, noted = places[largest], noted.places(largest)
        self._noted.append(
            (places + where.start if isinstance(where, slice) else where[places], noted)
        )


def _any(masks: Sequence[Tensor]) -> Tensor:
    result = masks[0]
    for mask in masks[1:]:
        result = result | mask
    return result


def _first_of_each(places: Tensor) -> Tensor:
    in_order, indices = places.sort()
    new = torch.ones_like(in_order, dtype=torch.bool)
    new[1:] = in_order[1:] != in_order[:-1]
    return indices[new]


def _joined(parts: Sequence[Rows]) -> Rows:
    def each(of: Callable[[Rows], list[Tensor] | None]) -> list[Tensor] | None:
        lists = [own for part in parts if (own := of(part)) is not None]
        return [torch.cat(tensors) for tensors in zip(*lists, strict=True)] if lists else None

    values = [torch.cat(tensors) for tensors in zip(*(p.values for p in parts), strict=True)]
    return Rows(values, each(lambda part: part.units), each(lambda part: part.errors))
