"""The left singular vectors and singular values of [D_1 … D_T], from the deltas' entries."""

from __future__ import annotations

from collections.abc import Sequence

import scipy.linalg
import torch
from torch import Tensor

from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.eigen import leading_eigenvectors
from mergekit_spectral.spectral.gram import (
    GRAM_RESOLUTION,
    LinAlgError,
    RankRule,
    gram_matrix,
    kept,
)
from mergekit_spectral.spectral.precision import solvable


def decompose_dense(
    deltas: Sequence[Delta], rank: RankRule, resolution: float, few: bool = False
) -> tuple[Tensor, Tensor]:
    """Choose the cheapest way that resolves singular values down to `resolution`·s_1.

    With m = min(out, T·in) and n = max(out, T·in), a Gram matrix takes m²·n float64 multiplications
    and its eigendecomposition about 4·m³. Where its resolution is not enough, a triangular factor
    takes its place, at several times the time. Neither decomposes anything of size [out, T·in], and
    unless that is tall, neither holds it.

    Args:
        deltas: T deltas of one shape [out, in], not all zero.
        rank: how many directions to keep; only those are made.
        resolution: the smallest singular value, relative to the largest, that must come out right.
        few: whether to expect that less than half of the directions are kept.

    Returns:
        U, [out, k], and all singular values in float64, descending.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    out_features, in_features = deltas[0].shape
    tall = out_features > in_features * len(deltas)
    if deltas[0].dtype == torch.float64 or resolution < GRAM_RESOLUTION:
        return (_by_tall_triangle if tall else _by_triangle)(deltas, rank)
    return (_by_right_gram if tall else _by_left_gram)(deltas, rank, few)


def _by_left_gram(deltas: Sequence[Delta], rank: RankRule, few: bool) -> tuple[Tensor, Tensor]:
    return leading_eigenvectors(gram_matrix(deltas), rank, deltas[0].dtype, few)


def _by_right_gram(deltas: Sequence[Delta], rank: RankRule, few: bool) -> tuple[Tensor, Tensor]:
    """Eigenvectors V of Dᵀ·D, [T·in, T·in], the smaller side of a tall D; then U = D·V/s."""
    D = _concatenated(deltas)
    vectors, values = leading_eigenvectors(D.T @ D, rank, torch.float64, few)
    return D @ (vectors / values[: vectors.shape[1]]), values


def _by_triangle(deltas: Sequence[Delta], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose to float64's own precision, through Dᵀ = Q·R and the SVD of Rᵀ, [out, out].

    R grows out of parts: with R_1 of the columns so far, that of [R_1; next columns] is R's next.
    """
    side = deltas[0].shape[0]
    rows = [solvable(torch.empty(0, side, device=deltas[0].device))]
    for delta in deltas:
        for _, block in delta.dense_columns():
            rows.append(solvable(block).T.clone())
            # As many as R has: fewer would factor R over and over.
            if sum(map(len, rows)) >= 2 * side:
                rows = [torch.linalg.qr(torch.cat(rows), mode="r").R]
    U, values = _svd(torch.linalg.qr(torch.cat(rows), mode="r").R.T)
    return U[:, : kept(rank, values)], values


def _by_tall_triangle(deltas: Sequence[Delta], rank: RankRule) -> tuple[Tensor, Tensor]:
    """The same for a tall D = Q·R: U is Q times that of R, [T·in, T·in]."""
    Q, R = torch.linalg.qr(_concatenated(deltas))
    U, values = _svd(R)
    return Q @ U[:, : kept(rank, values)], values


def _svd(triangle: Tensor) -> tuple[Tensor, Tensor]:
    try:
        U, values, _ = torch.linalg.svd(triangle, full_matrices=False)
    except LinAlgError:
        # Slower than divide and conquer, and it has hardly ever been seen to fail.
        try:
            parts = scipy.linalg.svd(
                triangle.cpu().numpy(), full_matrices=False, lapack_driver="gesvd"
            )
        except scipy.linalg.LinAlgError as error:
            raise LinAlgError(str(error)) from error
        U, values = (torch.from_numpy(part).to(triangle.device) for part in parts[:2])
    return U, values


def _concatenated(deltas: Sequence[Delta]) -> Tensor:
    return torch.cat([solvable(delta.to_dense()) for delta in deltas], dim=1)
