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

from mergekit_spectral.spectral.entries import Entries, Rows
from mergekit_spectral.spectral.selection import Threshold

Merge = Callable[[list[Tensor]], Tensor]
"""From T tensors of any one shape to one of that shape, place by place. It leaves them alone."""

Store = Callable[["slice | Tensor", Tensor], None]
"""Takes places of the flattened [rows, columns], as a slice or as indices, and their new values."""

_RELATIVE = 16 * torch.finfo(torch.float32).eps
"""A float32 sum's error relative to its own size, beside the one that `Entries.errors` gives."""

# Each costs `out` products an input, from columns all over the deltas: half a second for 4096 rows.
# Where there are more, in rows so small that all is rounding, the largest count.
_AT_MOST = 4096
_AT_MOST_AT_A_TIME = 1024


class CloseCalls:
    """Places to be decided again, noted while the others are merged.

    Args:
        entries: of T inputs. Nothing is noted where their values are exact.
        of_input: each input's threshold; inputs may share one.
        votes: the T weights with which a sign is elected; None if none is.
    """

    def __init__(
        self, entries: Entries, of_input: Sequence[Threshold], votes: Sequence[float] | None
    ):
        self.entries = entries
        self.of_input = of_input
        self.votes = votes
        self._noted: list[tuple[Tensor, Rows]] = []

    def note_prunings(
        self, where: slice | Tensor, rows: Rows, magnitudes: Sequence[Tensor]
    ) -> None:
        """Note the places where an entry is as near its threshold, which is exact, as its error."""
        if self.entries.errors is None or not magnitudes:
            return
        self._note(where, rows, _any(self._near_threshold(rows, magnitudes)))

    def note_elections(
        self, where: slice | Tensor, rows: Rows, pruned: Sequence[Tensor], merged: Tensor
    ) -> None:
        """Note the places where the sum of the votes, or a vote, is as small as its error."""
        if self.entries.errors is None or self.votes is None:
            return
        total, voters, votes = (torch.zeros_like(merged) for _ in range(3))
        for values, weight in zip(pruned, self.votes, strict=True):
            total.add_(values, alpha=weight)
            voters.add_(torch.ne(values, 0, out=votes))
        error = sum(abs(w) * e for w, e in zip(self.votes, self.entries.errors, strict=True))
        # Where the votes nearly cancel, each side is about T times the mean that was stored.
        relative = _RELATIVE * self.entries.count * max(map(abs, self.votes))
        near = total.abs_() <= merged.abs().mul_(relative).add_(error)
        near.logical_and_(voters > 0)
        for values, threshold, own in zip(pruned, self.of_input, self.entries.errors, strict=True):
            if not threshold.j:  # else, what is as small has been pruned
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
        largest = rows.largest(_AT_MOST)
        places, rows = places[largest], rows.places(largest)

        columns = self.entries.shape[1]
        exact = self.entries.exact(places // columns, places % columns)
        # An input that has no part in a direction gets none by being looked at more closely.
        exact = [torch.where(v == 0, 0, x) for v, x in zip(rows.values, exact, strict=True)]
        units = None if rows.units is None else [unit.double() for unit in rows.units]
        exact_rows = Rows(exact, units)
        magnitudes = exact_rows.magnitudes()
        if any(threshold.j for threshold in self.of_input):
            thresholds = self._exact_thresholds(rows, magnitudes)
            exact = [
                torch.where(m >= threshold, v, 0)
                for v, m, threshold in zip(exact, magnitudes, thresholds, strict=True)
            ]
        store(places, merge(exact))

    def _near_threshold(self, rows: Rows, magnitudes: Sequence[Tensor]) -> list[Tensor]:
        errors = self.entries.errors
        assert errors is not None
        near = []
        for t, (threshold, m) in enumerate(zip(self.of_input, magnitudes, strict=True)):
            error: Tensor | float = errors[t]
            if rows.units is not None:
                unit = rows.units[t]
                error = torch.where(unit > 0, errors[t] / unit, 0).to(m.dtype)
            # The entry's own, and as much of the threshold, which is an entry too.
            error = 2 * error + _RELATIVE * threshold.lower
            close = (m >= threshold.lower - error).logical_and_(m <= threshold.lower + error)
            near.append(close if threshold.j else torch.zeros_like(close))
        return near

    def _exact_thresholds(self, rows: Rows, exact: Sequence[Tensor]) -> list[float]:
        """Return the thresholds in float64.

        As many entries lie below; among those near it, it is the one of the same rank as before.
        """
        rounded = rows.magnitudes()
        near = self._near_threshold(rows, rounded)
        result = []
        for threshold in self.of_input:
            own = [t for t, other in enumerate(self.of_input) if other is threshold]
            below = sum(int((near[t] & (rounded[t] <= threshold.lower)).sum()) for t in own)
            candidates = torch.cat([exact[t][near[t]] for t in own])
            found = below and threshold.j
            result.append(float(candidates.kthvalue(below).values) if found else threshold.lower)
        return result

    def _note(self, where: slice | Tensor, rows: Rows, near: Tensor) -> None:
        places = near.flatten().nonzero().squeeze(1)
        if not len(places):
            return
        noted = rows.places(places)
        if len(places) > _AT_MOST_AT_A_TIME:
            largest = noted.largest(_AT_MOST_AT_A_TIME)
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
    T = len(parts[0].values)
    values = [torch.cat([part.values[t] for part in parts]) for t in range(T)]
    if parts[0].units is None:
        return Rows(values)
    units = [torch.cat([part.units[t] for part in parts if part.units]) for t in range(T)]
    return Rows(values, units)
