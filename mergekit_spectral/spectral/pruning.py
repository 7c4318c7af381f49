"""Pruning by magnitude, and merging what is left entry by entry (DRM, «Prune»)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mergekit_spectral.spectral.blocks import CACHE_BLOCK, STREAM_BLOCK, slices
from mergekit_spectral.spectral.close_calls import CloseCalls, Merge, Store
from mergekit_spectral.spectral.consensus import tally, without_cancelled_votes
from mergekit_spectral.spectral.entries import Entries, Rows
from mergekit_spectral.spectral.gram import LinAlgError
from mergekit_spectral.spectral.precision import TIE, solvable
from mergekit_spectral.spectral.selection import Band, Threshold

_BLOCKS = 8  # at most: for each, the inputs' deltas are formed again
_SAMPLED_ROWS = 256
_SAMPLED_ENTRIES = (1 << 16, 1 << 20)  # at least, at most; between them a share of all
_SAMPLED_SHARE = 16
_FEW_ENTRIES = 1 << 20

_SLACK = 1e-4
"""What rounded magnitudes may be off by, relative to themselves, with a wide margin: a float32
projection's error is about 1e-5 of an entry near a threshold."""


def merge_entries(
    entries: Entries,
    merge: Merge,
    store: Store,
    drop: int | Sequence[int] = 0,
    votes: Sequence[float] | None = None,
    outliers: Sequence[int] | None = None,
) -> None:
    """Zero the smallest entries and merge the inputs, a block of rows at a time.

    The threshold depends on entries that are still to come. Where they are cheap to make, it is
    found first. Where not, each is made once: what a sample of the rows decides is decided at once,
    and the few places where it does not are put aside and merged at the end.

    What rounding could have decided, a pruning or an elected sign, is decided again in float64.
    Entries within `TIE` of a threshold count as equal to it, and votes that cancel to `TIE` of
    their sum elect no sign: all inputs are zero there.

    Args:
        entries: of T inputs.
        merge: how the inputs' values at a place become one.
        store: takes the result. Some places are stored twice; the last value counts.
        drop: j, to zero every entry strictly below the j-th smallest of all inputs together; or T
            numbers, to do so in each input on its own. Of an input with a j greater than the number
            of its entries, nothing is kept.
        votes: where `merge` elects a sign, the T weights with which the inputs vote.
        outliers: T numbers, to zero every entry of an input strictly above its so many-th smallest
            too; 0 for an input without such a limit. Only with T numbers in `drop`.
    """
    if isinstance(drop, int):
        bands = [Band(Threshold(drop, entries.count * entries.numel))] * entries.count
    else:
        highest = outliers or [0] * entries.count
        bands = [
            Band(Threshold(j, entries.numel), Threshold(i, entries.numel) if i else None)
            if j <= entries.numel
            else Band(Threshold(0, entries.numel), empty=True)
            for j, i in zip(drop, highest, strict=True)
        ]
    if not entries.numel:
        return
    run = _Run(entries, bands, CloseCalls(entries, bands, votes), votes)
    if run.thresholds and not run.cheap:
        for where, rows in run.merge_what_is_decided(merge, store):
            run.merge_rows(merge, store, where, rows)
    else:
        run.find_thresholds()
        run.merge(merge, store)
    run.close_calls.decide(merge, store)


def stored_in(tensor: Tensor) -> Store:
    """Store places in a contiguous tensor as they are."""
    flat = tensor.view(-1)

    def store(where: slice | Tensor, values: Tensor) -> None:
        flat[where] = values.flatten().to(flat.dtype)

    return store


class _Run:
    """Passes through the entries of all inputs.

    Attributes:
        pruning: whether anything is to be zeroed.
        held: all the rows, if they are no more than a block.
        cheap: whether to go through the entries twice costs less than to remember much of them.
    """

    def __init__(
        self,
        entries: Entries,
        bands: Sequence[Band],
        close_calls: CloseCalls,
        votes: Sequence[float] | None,
    ):
        self.entries = entries
        self.bands = bands
        self.close_calls = close_calls
        self.votes = votes
        self.thresholds = list(dict.fromkeys(t for band in bands for t in band.thresholds))
        self.pruning = bool(self.thresholds) or any(band.empty for band in bands)
        rows, columns = entries.shape
        size = max(STREAM_BLOCK, entries.numel * entries.count // _BLOCKS)
        self.blocks = list(slices(rows, columns * entries.count, size))
        self.held = entries.take(slice(0, rows)) if len(self.blocks) == 1 else None
        few = entries.numel * entries.count <= _FEW_ENTRIES
        self.cheap = entries.cheap or (self.held is not None and few)

    def find_thresholds(self) -> None:
        """Make all thresholds exact."""

        def see(_: slice, chunk: Rows) -> None:
            for band, magnitudes in zip(self.bands, chunk.magnitudes(), strict=True):
                band.see(magnitudes)

        for _ in self._attempts():
            self._visit(see)

    def merge(self, merge: Merge, store: Store) -> None:
        """Merge all places, by thresholds that are exact."""
        self._visit(lambda where, chunk: self.merge_rows(merge, store, where, chunk))

    def merge_rows(self, merge: Merge, store: Store, where: slice | Tensor, rows: Rows) -> None:
        """Merge some places, by thresholds that are exact."""
        magnitudes = rows.magnitudes() if self.pruning else []
        pruned = self._pruned(rows.values, magnitudes) if self.pruning else rows.values
        self._merge_pruned(merge, store, where, rows, pruned)
        self.close_calls.note_prunings(where, rows, magnitudes)

    def merge_what_is_decided(self, merge: Merge, store: Store) -> list[tuple[Tensor, Rows]]:
        """Merge all places, make the thresholds exact, and return the places to merge again."""

        def merge_chunk(where: slice, chunk: Rows) -> None:
            magnitudes = chunk.magnitudes()
            near = [band.see(m) for band, m in zip(self.bands, magnitudes, strict=True)]
            pruned = self._pruned(chunk.values, magnitudes)
            self._merge_pruned(merge, store, where, chunk, pruned)
            if marked := [places for places in near if places is not None]:
                places = torch.unique(torch.cat(marked))
                undecided.append((places + where.start, chunk.places(places)))

        for _ in self._attempts():
            undecided: list[tuple[Tensor, Rows]] = []
            self._visit(merge_chunk)
        return undecided

    def _pruned(self, values: Sequence[Tensor], magnitudes: Sequence[Tensor]) -> list[Tensor]:
        return [
            band.keep(m).mul_(v) for v, m, band in zip(values, magnitudes, self.bands, strict=True)
        ]

    def _merge_pruned(
        self,
        merge: Merge,
        store: Store,
        where: slice | Tensor,
        rows: Rows,
        pruned: Sequence[Tensor],
    ) -> None:
        merged = merge(list(pruned))
        if self.votes is not None:
            total, mass = tally(pruned, self.votes)
            # Whether votes cancel, and which sign is elected where they nearly do, is told by
            # their sums in float64.
            rounding = max(4 * len(pruned) * torch.finfo(total.dtype).eps, TIE)
            close = (total.abs() <= rounding * mass).logical_and_(mass > 0)
            if (places := close.flatten().nonzero().squeeze(1)).numel():
                values = [solvable(value.flatten()[places]) for value in pruned]
                elected = merge(without_cancelled_votes(values, self.votes))
                merged = merged.flatten().index_copy(0, places, elected.to(merged)).view_as(total)
            self.close_calls.note_elections(where, rows, pruned, total, mass)
        store(where, merged)

    def _attempts(self) -> Iterator[None]:
        """Bracket the thresholds, ever more widely until a pass has found them; then settle."""
        if not self.thresholds:
            return
        samples, margin = self._samples()
        while True:
            for threshold in self.thresholds:
                of_inputs = zip(samples, self.bands, strict=True)
                own = [sample for sample, band in of_inputs if threshold in band.thresholds]
                slack = 0.0 if self.entries.errors is None else _SLACK
                threshold.bracket(torch.cat(own), margin, slack)
            yield
            if all(threshold.found for threshold in self.thresholds):
                break
            if margin >= 1:
                raise LinAlgError("the coordinates are out of their dtype's range")
            margin = max(8 * margin, 0.01)
        for threshold in self.thresholds:
            threshold.settle()

    def _samples(self) -> tuple[list[Tensor], float]:
        """Return some magnitudes of each input, and how far their ranks may be from those of all.

        Rows differ, and follow the spectrum: evenly spaced ones err by a row at most where
        magnitudes fall from row to row.
        """
        rows, columns = self.entries.shape
        stride = 1 if self.held else min(rows, max(_BLOCKS, rows // _SAMPLED_ROWS))
        taken = self.held or self.entries.take(slice(stride // 2, rows, stride))
        step = 1
        if not self.cheap:
            # Odd, so that columns of a kind are not left out together; and never all of them, which
            # would leave nothing in the bracket for `CloseCalls` to look at.
            fewest, most = _SAMPLED_ENTRIES
            wanted = self.entries.numel * self.entries.count // _SAMPLED_SHARE
            wanted = min(max(wanted, fewest), most)
            there = len(taken.values[0]) * columns * self.entries.count
            step = min(max(2 if self.held else 1, there // wanted) | 1, columns)
        some = Rows([values[:, ::step] for values in taken.values], taken.units)
        samples = [each.flatten() for each in some.magnitudes()]
        margin = 0.0
        if stride > 1:
            margin += stride / rows
        if step > 1 or stride > 1:
            margin += 2 / len(samples[0]) ** 0.5
        return samples, margin

    def _visit(self, visitor: Callable[[slice, Rows], None]) -> None:
        """Show runs of rows that fit a cache, each with its places in the flattened matrix.

        No iterator: its user would keep a block alive while the next one is made.
        """
        columns = self.entries.shape[1]
        for block in self.blocks:
            taken = self.held or self.entries.take(block)
            on_cpu = taken.values[0].device.type == "cpu"
            size = CACHE_BLOCK if on_cpu else STREAM_BLOCK
            width = columns * self.entries.count
            for part in slices(block.stop - block.start, width, size):
                start, stop = block.start + part.start, block.start + part.stop
                visitor(slice(start * columns, stop * columns), taken[part])
            del taken
