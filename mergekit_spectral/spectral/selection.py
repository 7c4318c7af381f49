"""The j-th smallest of very many magnitudes that come in parts, exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Threshold:
    """The j-th smallest of N magnitudes.

    A sample brackets it. The parts are then counted below the bracket and remembered within it:
    nothing is sorted, and little is kept.

    Args:
        j: which, from 1 to N; 0 for a threshold below which nothing lies.
        total: N.

    Attributes:
        lower: the threshold is not below this, if `found`.
        upper: the threshold is not above this, if `found`.
    """

    def __init__(self, j: int, total: int):
        self.j = j
        self.total = total
        self.lower = self.upper = 0.0
        self._below = 0
        self._within: list[Tensor] = []
        self._ties = 0

    def bracket(self, sample: Tensor, margin: float) -> None:
        """Expect the threshold about where it would be in a sample.

        Args:
            sample: magnitudes, [m], m ≥ 1. If it is all of them, the threshold is known.
            margin: how far the sample's ranks, as shares of m, may be from those of all.
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
        self.lower = float(sample.kthvalue(low).values) if low >= 1 else 0.0
        self.upper = float(sample.kthvalue(high).values) if high <= m else math.inf

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
        kept = at_least(magnitudes, self.lower)
        self._below += magnitudes.numel() - int(kept.sum())
        if self.lower == self.upper:
            self._ties += int((magnitudes == self.upper).sum())
            return None
        above = torch.gt(magnitudes, self.upper, out=torch.empty_like(magnitudes))
        places = kept.sub_(above).flatten().nonzero().squeeze(1)
        self._within.append(magnitudes.flatten()[places])
        return places

    @property
    def found(self) -> bool:
        """Whether the bracket was right; to be asked when all parts have been seen."""
        within = self._ties + sum(map(len, self._within))
        return self.j == 0 or self._below < self.j <= self._below + within

    def settle(self) -> None:
        """Make the bracket as narrow as the threshold itself, which must have been `found`."""
        if self._within:
            within = torch.cat(self._within)
            self.lower = self.upper = float(within.kthvalue(self.j - self._below).values)


def at_least(magnitudes: Tensor, threshold: float) -> Tensor:
    """Return 1 where a magnitude is not below `threshold`, and 0 elsewhere, in their dtype.

    To compare into numbers, and to multiply by them, takes PyTorch a tenth of the time of making
    truth values and choosing by them.
    """
    kept: Tensor = torch.ge(magnitudes, threshold, out=torch.empty_like(magnitudes))
    return kept
