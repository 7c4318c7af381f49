"""The j-th smallest of very many magnitudes that come in parts, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.precision import TIE


class Threshold:
    """The j-th smallest of N magnitudes.

    A sample brackets it. The parts are then counted below the bracket and remembered within it:
    nothing is sorted, and little is kept. Magnitudes within `TIE` of the threshold are equal to it.

    Args:
        j: which, from 1 to N; 0 for a threshold below which nothing lies.
        total: N.

    Attributes:
        lower: the threshold is not below this, if `found`.
        upper: the threshold is not above this, if `found`.
        rank_in_ties: once it is settled, how many of the magnitudes equal to it are the j-th
            smallest or before it in a sorted order.
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
        """Expect the threshold about where it would be in a sample.

        Args:
            sample: magnitudes, [m], m ≥ 1. If it is all of them, the threshold is known.
            margin: how far the sample's ranks, as shares of m, may be from those of all.
            slack: the relative difference to the sample's magnitudes that may be rounding.
        """
        self._below = self._ties = 0
        self._within = []
        if self.j == 0:
            return
        m = len(sample)
        whole = m == self.total
        share = self.j / self.total
        low = self.j if whole else math.floor((share - margin) * m)
        high = self.j if whole else math.ceil((share + margin) * m)
        slack = 0 if whole else slack
        self.lower = float(sample.kthvalue(low).values) * (1 - slack) if low >= 1 else 0.0
        self.upper = float(sample.kthvalue(high).values) * (1 + slack) if high <= m else math.inf

    def see(self, magnitudes: Tensor) -> Tensor | None:
        """Take a part into account.

        Args:
            magnitudes: at most 2²⁴, so that their dtype counts them.

        Returns:
            The places of the flattened part that may lie on either side of the threshold; None if
            there are none.
        """
        if self.j == 0:
            return None
        near = at_least(magnitudes, self.floor)
        self._below += magnitudes.numel() - int(near.sum())
        near.sub_(torch.gt(magnitudes, self.ceiling, out=torch.empty_like(magnitudes)))
        if self.lower == self.upper:
            self._ties += int(near.sum())
            return None
        places = near.flatten().nonzero().squeeze(1)
        self._within.append(magnitudes.flatten()[places])
        return places

    @property
    def found(self) -> bool:
        """Whether the bracket was right; to be asked when all parts have been seen."""
        within = self._ties + sum(int((w <= self.upper).sum()) for w in self._within)
        below = self._below + sum(int((w < self.lower).sum()) for w in self._within)
        return self.j == 0 or below < self.j <= self._below + within

    def settle(self) -> None:
        """Make the bracket as narrow as the threshold itself, which must have been `found`."""
        self.rank_in_ties = self.j - self._below
        if self._within:
            within = torch.cat(self._within)
            self.lower = self.upper = float(within.kthvalue(self.rank_in_ties).values)
            self.rank_in_ties -= int((within < self.lower).sum())


def at_least(magnitudes: Tensor, threshold: float) -> Tensor:
    """Return 1 where a magnitude is not below `threshold`, and 0 elsewhere, in their dtype.

    To compare into numbers, and to multiply by them, takes PyTorch a tenth of the time of making
    truth values and choosing by them.
    """
    kept: Tensor = torch.ge(magnitudes, threshold, out=torch.empty_like(magnitudes))
    return kept


def at_most(magnitudes: Tensor, threshold: float) -> Tensor:
    """Return 1 where a magnitude is not above `threshold`, and 0 elsewhere, in their dtype."""
    kept: Tensor = torch.le(magnitudes, threshold, out=torch.empty_like(magnitudes))
    return kept


@dataclass(frozen=True)
class Band:
    """What is kept of an input: magnitudes from one threshold up, to another one or without end.

    Attributes:
        low: the first threshold.
        high: the other one.
        empty: whether nothing is kept.
    """

    low: Threshold
    high: Threshold | None = None
    empty: bool = False

    @property
    def thresholds(self) -> list[Threshold]:
        """Those that decide anything."""
        return [t for t in (self.low, self.high) if t is not None and t.j]

    def see(self, magnitudes: Tensor) -> Tensor | None:
        """Take a part into account, as `Threshold.see`."""
        near = [places for t in self.thresholds if (places := t.see(magnitudes)) is not None]
        return torch.cat(near) if near else None

    def keep(self, magnitudes: Tensor) -> Tensor:
        """Return 1 where a magnitude is kept, and 0 elsewhere, in their dtype."""
        if self.empty:
            return torch.zeros_like(magnitudes)
        kept = at_least(magnitudes, self.low.floor)
        return kept if self.high is None else kept.mul_(at_most(magnitudes, self.high.ceiling))
