"""Which share of each row is pruned (DRM, Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.methods.drm import kept_ranks
from mergekit_spectral.spectral import TIE, Entries, Ranks

BINS = 25
"""An odd number, so that a row of which half is pruned lies within a bin."""


@dataclass(frozen=True)
class PrunedRows:
    """The shares that are pruned of the inputs' rows, in short.

    Attributes:
        mean: over all rows of all inputs.
        spread: their standard deviation.
        whole: the share of rows of which nothing is left.
        histogram: the share of rows in each of `BINS` bins from 0 to 1.
    """

    mean: float
    spread: float
    whole: float
    histogram: tuple[float, ...]

    @classmethod
    def of(cls, shares: Tensor) -> PrunedRows:
        """Summarize the shares of rows, of any shape."""
        counts = torch.histc(shares.float(), BINS, 0, 1)
        return cls(
            mean=round(float(shares.mean()), 4),
            spread=round(float(shares.std(correction=0)), 4),
            whole=round(float((shares == 1).double().mean()), 4),
            histogram=tuple(round(x, 5) for x in (counts / shares.numel()).tolist()),
        )


def kept_places(entries: Entries, density: float) -> list[Tensor]:
    """Return where DRM's pruning keeps the inputs' entries: T matrices of truth values.

    Args:
        entries: of T inputs, whose magnitudes are compared all together.
        density: the share of all entries to keep, 0 < density ≤ 1.
    """
    magnitudes = entries.take(slice(0, entries.shape[0])).magnitudes()
    flat = torch.cat([matrix.flatten() for matrix in magnitudes])
    ranks = kept_ranks(entries, [density])
    assert isinstance(ranks, Ranks)
    threshold = (1 - TIE) * flat.kthvalue(ranks.first).values if ranks.first else 0.0
    return [matrix >= threshold for matrix in magnitudes]


def pruned_shares(entries: Entries, density: float) -> Tensor:
    """Return the share of each row that DRM's pruning takes: [T, rows] in float64."""
    return torch.stack([(~kept).double().mean(dim=1) for kept in kept_places(entries, density)])
