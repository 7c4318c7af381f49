"""Which entries pruning keeps: the thresholds that are the j-th smallest of very many magnitudes.

Nothing is sorted, and the magnitudes are never all in memory. A sample brackets each threshold; the
magnitudes then come in parts, of which those below the bracket are counted and those within it are
remembered; at the end the threshold is one of the remembered ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.numerics import TIE


@dataclass(frozen=True)
class KeptRange:
    """The entries that pruning keeps, by their numbers in the order of magnitudes, from 1 on.

    Attributes:
        first: the number of the smallest entry that is kept; 0 or 1 keeps all of the smallest, and
            a number beyond the last entry keeps nothing.
        last: the number of the largest entry that is kept; None keeps all of the largest, and a
            number below 1 keeps nothing.
    """

    first: int = 0
    last: int | None = None


class Threshold:
    """The j-th smallest of N magnitudes. Magnitudes within `TIE` of it count as equal to it.

    Args:
        j: from 1 to N.
        total: N.

    Attributes:
        lower: if `found`, the threshold is not below this.
        upper: if `found`, the threshold is not above this.
        rank_in_ties: the number of magnitudes equal to the threshold whose rank is at most j, once
            it is settled.
    """

    def __init__(self, j: int, total: int):
        self.j = j
        self.total = total
        self.lower = self.upper = 0.0
        self.rank_in_ties = 0
        self._below = 0
        self._within: list[Tensor] = []
        self._ties = 0

    @property
    def floor(self) -> float:
        """The smallest magnitude that may be equal to the threshold."""
        return self.lower * (1 - TIE)

    @property
    def ceiling(self) -> float:
        """The largest magnitude that may be equal to the threshold."""
        return self.upper * (1 + TIE)

    def bracket(self, sample: Tensor, margin: float, slack: float) -> None:
        """Expect the threshold near its place in a sample, and forget what was counted.

        Args:
            sample: magnitudes, [m], m ≥ 1. If it is all of them, the threshold is known.
            margin: how far the sample's ranks, as shares of m, may be from those of all.
            slack: the relative difference to the sample's magnitudes that may be rounding.
        """
        self._below = self._ties = 0
        self._within = []
        m = len(sample)
        whole = m == self.total
        share = self.j / self.total
        low = self.j if whole else math.floor((share - margin) * m)
        high = self.j if whole else math.ceil((share + margin) * m)
        slack = 0 if whole else slack
        self.lower = float(sample.kthvalue(low).values) * (1 - slack) if low >= 1 else 0.0
        self.upper = float(sample.kthvalue(high).values) * (1 + slack) if high <= m else math.inf

    def count(self, magnitudes: Tensor) -> Tensor | None:
        """Count the next part of the magnitudes.

        Args:
            magnitudes: at most 2²⁴, so that their dtype can count them.

        Returns:
            The places of the flattened part that may be on either side of the threshold; None if
            there are none.
        """
        is_near = _at_least(magnitudes, self.floor)  # 1 or 0
        self._below += magnitudes.numel() - int(is_near.sum())
        is_near.sub_(torch.gt(magnitudes, self.ceiling, out=torch.empty_like(magnitudes)))
        if self.lower == self.upper:
            self._ties += int(is_near.sum())
            return None
        places = is_near.flatten().nonzero().squeeze(1)
        self._within.append(magnitudes.flatten()[places])
        return places

    @property
    def found(self) -> bool:
        """Whether the threshold is within the bracket. Ask when all parts have been counted."""
        within = self._ties + sum(int((w <= self.upper).sum()) for w in self._within)
        below = self._below + sum(int((w < self.lower).sum()) for w in self._within)
        return below < self.j <= self._below + within

    def settle(self) -> None:
        """Narrow the bracket to the threshold itself, which must have been `found`."""
        self.rank_in_ties = self.j - self._below
        if self._within:
            within = torch.cat(self._within)
            self.lower = self.upper = float(within.kthvalue(self.rank_in_ties).values)
            self.rank_in_ties -= int((within < self.lower).sum())


@dataclass(frozen=True)
class Band:
    """The magnitudes that are kept of one input.

    Attributes:
        low: those below it are dropped; None if none are.
        high: those above it are dropped; None if none are.
        empty: whether all are dropped.
    """

    low: Threshold | None = None
    high: Threshold | None = None
    empty: bool = False

    def keep(self, magnitudes: Tensor) -> Tensor:
        """Return 1 where a magnitude is kept, and 0 elsewhere, in their dtype."""
        if self.empty:
            return torch.zeros_like(magnitudes)
        if self.low is None:
            kept = torch.ones_like(magnitudes)
        else:
            kept = _at_least(magnitudes, self.low.floor)
        return kept if self.high is None else kept.mul_(_at_most(magnitudes, self.high.ceiling))


class Pruning:
    """The thresholds of T inputs: one that all share, or each input's own.

    Args:
        keep: the range to keep of all inputs' entries together; or T ranges, each of its input's
            own entries; or None to keep everything.
        inputs: T.
        numel: the number of entries of one input.

    Attributes:
        bands: what is kept of each input; inputs may share a threshold.
        thresholds_of_inputs: each input's thresholds, as pairs of the input and one of them.
        inputs_of: the inputs that are pruned by each threshold.
        thresholds: all of them, without repetition.
        drops: whether anything is to be dropped.
    """

    def __init__(self, keep: KeptRange | Sequence[KeptRange] | None, inputs: int, numel: int):
        if keep is None or isinstance(keep, KeptRange):
            self.bands = [_band(keep or KeptRange(), inputs * numel)] * inputs
        else:
            self.bands = [_band(own, numel) for own in keep]
        self.thresholds_of_inputs = [
            (t, threshold)
            for t, band in enumerate(self.bands)
            for threshold in (band.low, band.high)
            if threshold is not None
        ]
        self.inputs_of: dict[Threshold, list[int]] = {}
        for t, threshold in self.thresholds_of_inputs:
            self.inputs_of.setdefault(threshold, []).append(t)
        self.thresholds = list(self.inputs_of)
        self.drops = bool(self.thresholds) or any(band.empty for band in self.bands)

    def bracket(self, samples: Sequence[Tensor], margin: float, slack: float) -> None:
        """Bracket all thresholds by a sample of each input's magnitudes; see `Threshold`."""
        for threshold, inputs in self.inputs_of.items():
            threshold.bracket(torch.cat([samples[t] for t in inputs]), margin, slack)

    def count(self, magnitudes: Sequence[Tensor]) -> Tensor | None:
        """Count the next part of each input's magnitudes.

        Returns:
            The places of the flattened part at which an input's entry may be kept or not, [n], in
            order; None if there are none.
        """
        counted = [own.count(magnitudes[t]) for t, own in self.thresholds_of_inputs]
        near_places = [places for places in counted if places is not None]
        return torch.unique(torch.cat(near_places)) if near_places else None

    @property
    def found(self) -> bool:
        """Whether all thresholds are within their brackets."""
        return all(threshold.found for threshold in self.thresholds)

    def settle(self) -> None:
        """Make all thresholds exact."""
        for threshold in self.thresholds:
            threshold.settle()

    def apply(self, values: Sequence[Tensor], magnitudes: Sequence[Tensor]) -> list[Tensor]:
        """Return each input's values with zeros in place of those that are dropped."""
        return [
            band.keep(own).mul_(value)
            for value, own, band in zip(values, magnitudes, self.bands, strict=True)
        ]


def _band(keep: KeptRange, total: int) -> Band:
    if keep.first > total or (keep.last is not None and keep.last < 1):
        return Band(empty=True)
    return Band(
        low=Threshold(keep.first, total) if keep.first > 1 else None,
        high=Threshold(keep.last, total) if keep.last is not None else None,
    )


# Comparing into numbers and multiplying by them takes PyTorch a tenth of the time that comparing
# into truth values and selecting by them takes.


def _at_least(magnitudes: Tensor, threshold: float) -> Tensor:
    kept: Tensor = torch.ge(magnitudes, threshold, out=torch.empty_like(magnitudes))
    return kept


def _at_most(magnitudes: Tensor, threshold: float) -> Tensor:
    kept: Tensor = torch.le(magnitudes, threshold, out=torch.empty_like(magnitudes))
    return kept
