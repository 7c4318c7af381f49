"""Prune the inputs' entries by magnitude and merge what is left, place by place.

A threshold depends on all entries, and there are too many to hold or to sort. So a merge goes like
this. A *sample* of the rows shows roughly where each threshold is, and *brackets* it between two
bounds. Then all rows are computed, block by block. Entries outside the brackets are decided, so
their places are *merged* at once. When all entries have been counted, the thresholds are exact, and
the undecided entries are *settled*. If a threshold was outside its bracket, brackets are widened
and all blocks are computed again. At the end, *borderline* entries, for which rounding could have
decided, are decided again by their values in float64.

Two strategies differ in what happens to undecided entries. Entries that are cheap to compute are
computed twice: a first pass finds the thresholds and a second one merges (`_merge_in_two_passes`).
Others are computed once, and the few undecided ones are put aside (`_merge_in_one_pass`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from mergekit_spectral.spectral.merging.averaging import tally, without_cancelled_votes
from mergekit_spectral.spectral.merging.borderline import Borderline
from mergekit_spectral.spectral.merging.entries import Entries, Rows
from mergekit_spectral.spectral.merging.thresholds import KeptRange, Pruning
from mergekit_spectral.spectral.numerics import (
    CACHE_BLOCK,
    STREAM_BLOCK,
    TIE,
    in_float64,
    slices,
)
from mergekit_spectral.spectral.svd.eigen import LinAlgError

MergeFunction = Callable[[list[Tensor]], Tensor]
"""Merges T tensors of one shape into one of that shape, place by place. The T are not changed."""


class Output(Protocol):
    """Takes merged entries."""

    def write(self, places: slice | Tensor, values: Tensor) -> None:
        """Take the values of some places.

        Args:
            places: of the flattened [rows, columns], as a slice or as indices [n].
            values: as many as places, in any shape. They replace those written before.
        """


class TensorOutput:
    """Writes merged entries to a contiguous tensor, in its dtype."""

    def __init__(self, tensor: Tensor):
        self._flat = tensor.view(-1)

    def write(self, places: slice | Tensor, values: Tensor) -> None:
        self._flat[places] = values.flatten().to(self._flat.dtype)


_BLOCKS = 8
"""The largest number of blocks: for each of them, the inputs' deltas are computed again."""

_SAMPLED_ROWS = 256
_SAMPLED_ENTRIES = (1 << 16, 1 << 20)
"""The smallest and the largest number of sampled entries; between them it is a share of all."""

_SAMPLED_SHARE = 16
_FEW_ENTRIES = 1 << 20

_SLACK = 1e-4
"""The relative error of rounded magnitudes, with a wide margin: a float32 projection's error is
about 1e-5 of an entry near a threshold."""


def merge_entries(
    entries: Entries,
    merge: MergeFunction,
    output: Output,
    keep: KeptRange | Sequence[KeptRange] | None = None,
    votes: Sequence[float] | None = None,
) -> None:
    """Zero the entries that are not kept and merge the inputs, place by place.

    Entries within `TIE` of a threshold count as equal to it and are kept. Votes that cancel to
    `TIE` of their sum elect no sign: all inputs are zero there.

    Args:
        entries: of T inputs.
        merge: how the inputs' values at a place are merged.
        output: takes the result. It may be given some places several times; the last value counts.
        keep: the range to keep of the entries of all inputs together; or T ranges, each of its
            input's own entries; or None to keep everything.
        votes: if `merge` elects a sign, the T weights with which the inputs vote.

    Raises:
        LinAlgError: if entries are out of the range of their dtype.
    """
    if not entries.numel:
        return
    job = _Job(entries, merge, output, Pruning(keep, entries.inputs, entries.numel), votes)
    if not job.pruning.thresholds:
        _merge_without_thresholds(job)
    elif job.cheap:
        _merge_in_two_passes(job)
    else:
        _merge_in_one_pass(job)
    if decided := job.borderline.decided():
        places, values = decided
        output.write(places, merge(values))


def _merge_without_thresholds(job: _Job) -> None:
    """Merge all places: all entries are kept, or none of an input."""
    for block in job.blocks:
        job.merge_exactly(block)


def _merge_in_two_passes(job: _Job) -> None:
    """Find the thresholds, then merge all places."""

    def count_all() -> None:
        for block in job.blocks:
            job.count(block)

    _find_thresholds(job, _Sample.of_rows(job), count_all)
    for block in job.blocks:
        job.merge_exactly(block)


def _merge_in_one_pass(job: _Job) -> None:
    """Merge all places and put the undecided ones aside; merge these by exact thresholds."""

    def merge_all() -> list[tuple[Tensor, Rows]]:
        return [part for block in job.blocks for part in job.merge_provisionally(block)]

    for places, rows in _find_thresholds(job, _Sample.of_entries(job), merge_all):
        job.merge_rows(places, rows)


Counted = TypeVar("Counted")


def _find_thresholds(job: _Job, sample: _Sample, count_all: Callable[[], Counted]) -> Counted:
    """Make the thresholds exact, in one pass over all entries, or more if a bracket is missed.

    Args:
        job: whose thresholds are found.
        sample: brackets them.
        count_all: counts the magnitudes of all entries.

    Returns:
        What `count_all` returned in the last pass.
    """
    while True:
        sample.bracket(job.pruning)
        counted = count_all()
        if job.pruning.found:
            job.pruning.settle()
            return counted
        del counted  # before the next pass takes as much memory
        sample.widen()


class _Job:
    """One merge: its parts, and what is done with a block of rows.

    A block's entries live no longer than the call that handles it: two blocks at a time would take
    twice the memory.

    Attributes:
        blocks: the rows of each block.
        held: all rows, if they are one block.
        cheap: whether computing the entries twice costs less than remembering many of them.
    """

    def __init__(
        self,
        entries: Entries,
        merge: MergeFunction,
        output: Output,
        pruning: Pruning,
        votes: Sequence[float] | None,
    ):
        self.entries = entries
        self.merge = merge
        self.output = output
        self.pruning = pruning
        self.votes = votes
        self.borderline = Borderline(entries, pruning, votes)
        rows, columns = entries.shape
        size = max(STREAM_BLOCK, entries.total // _BLOCKS)
        self.blocks = slices(rows, columns * entries.inputs, size)
        self.held = entries.take(slice(0, rows)) if len(self.blocks) == 1 else None
        few = entries.total <= _FEW_ENTRIES
        self.cheap = entries.cheap or (self.held is not None and few)

    def count(self, block: slice) -> None:
        """Count a block's magnitudes."""
        for _, rows in self._chunks(block):
            self.pruning.count(rows.magnitudes())

    def merge_exactly(self, block: slice) -> None:
        """Merge a block by exact thresholds."""
        for places, rows in self._chunks(block):
            self.merge_rows(places, rows)

    def merge_provisionally(self, block: slice) -> list[tuple[Tensor, Rows]]:
        """Count a block's magnitudes and merge all of it by the brackets.

        What is written for undecided places is provisional: they are returned, to be merged again
        by exact thresholds. Only they can be near a threshold, because the brackets are wider than
        rounding errors. So no prunings are noted yet.
        """
        undecided = []
        for places, rows in self._chunks(block):
            magnitudes = rows.magnitudes()
            near_places = self.pruning.count(magnitudes)
            self._write_merged(places, rows, self.pruning.apply(rows.values, magnitudes))
            if near_places is not None:
                undecided.append((near_places + places.start, rows.at(near_places)))
        return undecided

    def merge_rows(self, places: slice | Tensor, rows: Rows) -> None:
        """Merge some places by exact thresholds."""
        if not self.pruning.drops:
            self._write_merged(places, rows, rows.values)
            return
        magnitudes = rows.magnitudes()
        self._write_merged(places, rows, self.pruning.apply(rows.values, magnitudes))
        self.borderline.note_prunings(places, rows, magnitudes)

    def _write_merged(self, places: slice | Tensor, rows: Rows, pruned: list[Tensor]) -> None:
        merged = self.merge(pruned)
        if self.votes is not None:
            total, mass = tally(pruned, self.votes)
            merged = self._with_close_votes_decided(merged, pruned, self.votes, total, mass)
            self.borderline.note_elections(places, rows, pruned, total, mass)
        self.output.write(places, merged)

    def _with_close_votes_decided(
        self,
        merged: Tensor,
        pruned: Sequence[Tensor],
        votes: Sequence[float],
        total: Tensor,
        mass: Tensor,
    ) -> Tensor:
        """Merge in float64 where the votes nearly cancel: their sums there decide the sign."""
        rounding = max(4 * len(pruned) * torch.finfo(total.dtype).eps, TIE)
        is_close = (total.abs() <= rounding * mass).logical_and_(mass > 0)
        close_places = is_close.flatten().nonzero().squeeze(1)
        if not close_places.numel():
            return merged
        values = [in_float64(value.flatten()[close_places]) for value in pruned]
        elected = self.merge(without_cancelled_votes(values, votes)).to(merged)
        return merged.flatten().index_copy(0, close_places, elected).view_as(total)

    def _chunks(self, block: slice) -> Iterator[tuple[slice, Rows]]:
        """Yield a block in parts that fit a cache, with their places in the flattened entries."""
        columns = self.entries.shape[1]
        taken = self.held or self.entries.take(block)
        size = CACHE_BLOCK if taken.values[0].device.type == "cpu" else STREAM_BLOCK
        for part in slices(block.stop - block.start, columns * self.entries.inputs, size):
            start, stop = block.start + part.start, block.start + part.stop
            yield slice(start * columns, stop * columns), taken[part]


class _Sample:
    """Some magnitudes of each input, which bracket the thresholds.

    Rows differ, and their magnitudes follow the spectrum. Evenly spaced rows err by at most a row
    where magnitudes fall from row to row.

    Args:
        job: whose entries are sampled.
        rows: which rows to take.
        step: take every step-th column.
    """

    def __init__(self, job: _Job, rows: slice, step: int):
        entries = job.entries
        taken = job.held or entries.take(rows)
        some = Rows([values[:, ::step] for values in taken.values], taken.units)
        self._magnitudes = [each.flatten() for each in some.magnitudes()]
        self._slack = 0.0 if entries.errors is None else _SLACK
        self._margin = rows.step / entries.shape[0] if rows.step > 1 else 0.0
        if step > 1 or rows.step > 1:
            self._margin += 2 / len(self._magnitudes[0]) ** 0.5

    @classmethod
    def of_rows(cls, job: _Job) -> _Sample:
        """Take all columns of some rows."""
        return cls(job, _sampled_rows(job), step=1)

    @classmethod
    def of_entries(cls, job: _Job) -> _Sample:
        """Take some columns of some rows: few enough to be fast, and never all entries.

        With all entries the brackets would be empty, and `Borderline` needs those within them.
        """
        rows = _sampled_rows(job)
        columns = job.entries.shape[1]
        fewest, most = _SAMPLED_ENTRIES
        wanted = min(max(job.entries.total // _SAMPLED_SHARE, fewest), most)
        available = len(range(job.entries.shape[0])[rows]) * columns * job.entries.inputs
        # An odd step, so that columns of one kind are not all left out.
        step = max(2 if job.held else 1, available // wanted) | 1
        return cls(job, rows, min(step, columns))

    def bracket(self, pruning: Pruning) -> None:
        """Bracket all thresholds."""
        pruning.bracket(self._magnitudes, self._margin, self._slack)

    def widen(self) -> None:
        """Make the next brackets wider, because a threshold was outside of its own.

        Raises:
            LinAlgError: if the brackets held everything already.
        """
        if self._margin >= 1:
            raise LinAlgError("the coordinates are out of their dtype's range")
        self._margin = max(8 * self._margin, 0.01)


def _sampled_rows(job: _Job) -> slice:
    rows = job.entries.shape[0]
    step = 1 if job.held else min(rows, max(_BLOCKS, rows // _SAMPLED_ROWS))
    return slice(step // 2, rows, step)
