"""Approximations of low rank to one delta: STAR's truncation, and the best one of a given rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.deltas import Delta, FactoredDelta
from mergekit_spectral.spectral.numerics import TIE, exact_matmul
from mergekit_spectral.spectral.svd.joint import joint_decomposition

_NOISE = 1e-7
"""Singular values of at most this share of the largest are rounding noise of a Gram matrix."""


def kept_rank(spectrum: Tensor, eta: float) -> int:
    """Return the smallest r with s_1 + … + s_r ≥ (eta/100)·(s_1 + … + s_n).

    A sum that is smaller by a share of at most `TIE` counts as equal.

    Args:
        spectrum: singular values, [n], descending, at least one.
        eta: a percentage, 0 < eta ≤ 100.
    """
    cumulative = spectrum.cumsum(0)
    return int((cumulative < (1 - TIE) * eta / 100 * cumulative[-1]).sum()) + 1


@exact_matmul()
def truncate(delta: Delta, eta: float) -> FactoredDelta:
    """Keep a delta's leading directions and rescale them to the delta's own nuclear norm.

    STAR, arXiv 2502.10339, §3.

    Args:
        delta: [out, in].
        eta: the percentage of the nuclear norm that the kept directions must reach before
            rescaling, 0 < eta ≤ 100.

    Returns:
        U_r · diag(s_r)·V_rᵀ · Σs/Σs_r in factors, of rank r; of rank 0 if the delta is zero.
    """
    noise = 0.0 if delta.dtype == torch.float64 else _NOISE

    def above_noise(spectrum: Tensor) -> Tensor:
        return spectrum.masked_fill(spectrum <= noise * spectrum[:1], 0)

    decomposition = joint_decomposition(
        [delta], lambda s: kept_rank(above_noise(s), eta), few=True, exact=False
    )
    spectrum, r = above_noise(decomposition.spectrum), decomposition.basis.shape[1]
    rescale = float(spectrum.sum() / spectrum[:r].sum()) if r else 1.0
    return FactoredDelta(decomposition.basis, decomposition.coordinates(delta) * rescale)


@dataclass(frozen=True)
class Compressed:
    """A delta of low rank, and the share of the original that it keeps.

    Attributes:
        delta: of rank r. Its factors share the singular values equally, diag(√s)·Vᵀ and U·diag(√s),
            so that neither is rounded more than the other in a dtype of few digits.
        kept: the share of the original's squared Frobenius norm, 0 to 1.
    """

    delta: FactoredDelta
    kept: float

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.delta.B.shape[1]


@exact_matmul()
def compress(delta: Delta, rank: int | None = None, energy: float = 1.0) -> Compressed:
    """Return the best approximation of at most `rank` that keeps at least `energy`.

    The best one in the Frobenius norm is the truncated SVD (Eckart and Young).

    Args:
        delta: [out, in].
        rank: the largest rank to use, at least 1; if None, as many as it takes.
        energy: the share of the squared Frobenius norm to keep, 0 < energy ≤ 1, where `rank` allows
            it. 1 keeps all directions except those of rounding noise.
    """
    noise = 4 * torch.finfo(delta.dtype).eps

    def rule(spectrum: Tensor) -> int:
        present = int((spectrum > noise * spectrum[0]).sum())
        squares = spectrum[:present].square()
        enough = int((squares.cumsum(0) < energy * squares.sum()).sum()) + 1
        return min(enough, present, rank or present)

    decomposition = joint_decomposition([delta], rule, few=True, exact=False)
    U, s = decomposition.basis, decomposition.spectrum
    roots = s[: U.shape[1]].sqrt().to(U.dtype)
    compressed = FactoredDelta(U * roots, decomposition.coordinates(delta) / roots[:, None])
    squares = s.square()
    kept = float(squares[: U.shape[1]].sum() / squares.sum()) if U.shape[1] else 1.0
    return Compressed(compressed, kept)
