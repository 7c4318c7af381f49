"""The left singular vectors and singular values of [D_1 … D_T], from the deltas' entries.

Each function takes T matrices of one shape [out, in] and returns U [out, k] and all singular
values, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mergekit_spectral.spectral.gram import (
    GRAM_RESOLUTION,
    RankRule,
    descending_eigh,
    kept,
    solvable,
)


def decompose_dense(
    matrices: Sequence[Tensor], rank: RankRule, resolution: float
) -> tuple[Tensor, Tensor]:
    """Choose the cheapest way that resolves singular values down to `resolution`·s_1.

    With m = min(out, T·in) and n = max(out, T·in), a Gram matrix takes 2·m²·n and about 10·m³
    float64 operations and m² + 2·out·in values; the plain SVD several times that.
    """
    first = matrices[0]
    # So that squares stay in range.
    scale = max(float(matrix.abs().max()) for matrix in matrices)
    if scale == 0:
        sides = first.shape[0], first.shape[1] * len(matrices)
        return first.new_zeros(first.shape[0], 0).double(), first.new_zeros(min(sides)).double()
    if first.dtype == torch.float64 or resolution < GRAM_RESOLUTION:
        decompose = _by_svd
    elif first.shape[0] <= first.shape[1] * len(matrices):
        decompose = _by_left_gram
    else:
        decompose = _by_right_gram
    basis, values = decompose(matrices, rank, scale)
    return basis, values * scale


def _by_svd(matrices: Sequence[Tensor], rank: RankRule, scale: float) -> tuple[Tensor, Tensor]:
    basis, values, _ = torch.linalg.svd(_concatenated(matrices, scale), full_matrices=False)
    return basis[:, : kept(rank, values)], values


def _by_left_gram(
    matrices: Sequence[Tensor], rank: RankRule, scale: float
) -> tuple[Tensor, Tensor]:
    """Eigenvectors of D·Dᵀ = Σ_t D_t·D_tᵀ, [out, out], one input at a time."""
    side = matrices[0].shape[0]
    gram = solvable(matrices[0].new_zeros(side, side))
    for matrix in matrices:
        scaled = solvable(matrix) / scale
        gram.addmm_(scaled, scaled.T)
    vectors, values = descending_eigh(gram)
    return vectors[:, : kept(rank, values)], values


def _by_right_gram(
    matrices: Sequence[Tensor], rank: RankRule, scale: float
) -> tuple[Tensor, Tensor]:
    """Eigenvectors V of Dᵀ·D, [T·in, T·in], the smaller side of a tall D; then U = D·V/s."""
    D = _concatenated(matrices, scale)
    vectors, values = descending_eigh(D.T @ D)
    k = kept(rank, values)
    return D @ (vectors[:, :k] / values[:k]), values


def _concatenated(matrices: Sequence[Tensor], scale: float) -> Tensor:
    return torch.cat([solvable(matrix) / scale for matrix in matrices], dim=1)
