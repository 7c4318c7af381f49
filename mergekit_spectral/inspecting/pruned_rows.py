"""Compute the share of each row that DRM prunes (Figure 3 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.methods.drm import kept_range
from mergekit_spectral.spectral import TIE, Entries, KeptRange

BINS = 25
"""An odd number, so that the share 0.5 is the middle of a bin, not an edge between two bins."""


@dataclass(frozen=True)
class PrunedRows:
    """Statistics of the pruned share of rows.

    Attributes:
        mean: mean pruned share of the rows.
        spread: standard deviation of the pruned share.
        whole: share of the rows that are pruned completely.
        histogram: share of the rows in each of `BINS` bins of the pruned share, from 0 to 1.
    """

    mean: float
    spread: float
    whole: float
    histogram: tuple[float, ...]

    @classmethod
    def of(cls, shares: Tensor) -> PrunedRows:
        """Compute the statistics of pruned shares, in a tensor of any shape."""
        counts = torch.histc(shares.float(), BINS, 0, 1)
        return cls(
            mean=round(float(shares.mean()), 4),
            spread=round(float(shares.std(correction=0)), 4),
            whole=round(float((shares == 1).double().mean()), 4),
            histogram=tuple(round(x, 5) for x in (counts / shares.numel()).tolist()),
        )


def kept_places(entries: Entries, density: float) -> list[Tensor]:
    """Return which entries DRM's pruning keeps.

    Args:
        entries: the entries of T inputs. One threshold is used for all inputs.
        density: share of all entries to keep, 0 < density ≤ 1.

    Returns:
        A boolean matrix for each input, True where an entry is kept.
    """
    magnitudes = entries.take(slice(0, entries.shape[0])).magnitudes()
    flat = torch.cat([matrix.flatten() for matrix in magnitudes])
    keep = kept_range(entries, [density])
    assert isinstance(keep, KeptRange)
    threshold = (1 - TIE) * flat.kthvalue(keep.first).values if keep.first else 0.0
    return [matrix >= threshold for matrix in magnitudes]


def pruned_shares(entries: Entries, density: float) -> Tensor:
    """Return the share of each row that DRM prunes, [T, rows] in float64."""
    return torch.stack([(~kept).double().mean(dim=1) for kept in kept_places(entries, density)])
