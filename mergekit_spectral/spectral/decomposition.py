"""The joint singular value decomposition of several task deltas.

    [D_1 … D_T] = U diag(s) [V_1ᵀ … V_Tᵀ]

Only U and s are made. Input t's share of the right side follows by projection, which costs one
product, is exact where the deltas are, and can be done for one input, or a part of one, at a time:
diag(s)·V_tᵀ = Uᵀ·D_t.

References: KnOTS, arXiv 2410.19735, §4; Decom-Renorm-Merge, «Decompose».
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.precision import exact_matmul

RankRule = Callable[[Tensor], int]
"""From all singular values, [n] in float64 and descending, to the number of directions to keep."""

# Squaring halves the digits: eigenvalues of a float64 Gram matrix are good to about 1e-16 of the
# largest, so singular values to about 1e-8 of the largest, with a margin for the matrix's size.
_GRAM_RESOLUTION = 1e-6


@dataclass(frozen=True)
class JointDecomposition:
    """The k leading directions that the inputs share.

    Attributes:
        basis: U, [out, k], orthonormal columns in the working dtype, on the deltas' device.
        spectrum: s, [min(out, T·in)], float64, descending: all singular values, also those of
            directions that are not kept.
    """

    basis: Tensor
    spectrum: Tensor

    @exact_matmul()
    def coordinates(self, delta: Delta) -> Tensor:
        """Return one input in the shared basis, Uᵀ·D_t = diag(s)·V_tᵀ, [k, in]."""
        return delta.project(self.basis)


@exact_matmul()
def joint_decomposition(
    deltas: Sequence[Delta], rank: RankRule, resolution: float = _GRAM_RESOLUTION
) -> JointDecomposition:
    """Decompose the horizontal concatenation of `deltas`, [out, T·in].

    Args:
        deltas: T deltas of one shape [out, in] and one dtype, at least one.
        rank: how many directions to keep; only those are made.
        resolution: the smallest singular value, relative to the largest, that must come out
            right. Float64 deltas are always resolved to float64's own precision.

    Returns:
        The kept directions and the whole spectrum; no directions if all deltas are zero.

    Cost, with m = min(out, T·in) and n = max(out, T·in): 2·m²·n + about 10·m³ float64 operations
    and m² + 2·out·in values beside the inputs, or several times that when `resolution` asks for
    the plain SVD.
    """
    first = deltas[0].to_dense()
    scale = max(float(delta.to_dense().abs().max()) for delta in deltas)
    if scale == 0:
        return JointDecomposition(
            basis=first.new_zeros(first.shape[0], 0),
            spectrum=first.new_zeros(min(first.shape[0], first.shape[1] * len(deltas))).double(),
        )

    if first.dtype == torch.float64 or resolution < _GRAM_RESOLUTION:
        basis, values = _by_svd(deltas, rank, scale)
    elif first.shape[0] <= first.shape[1] * len(deltas):
        basis, values = _by_left_gram(deltas, rank, scale)
    else:
        basis, values = _by_right_gram(deltas, rank, scale)
    return JointDecomposition(
        basis=basis.to(device=first.device, dtype=first.dtype),
        spectrum=(values * scale).to(first.device),
    )


def _by_svd(deltas: Sequence[Delta], rank: RankRule, scale: float) -> tuple[Tensor, Tensor]:
    basis, values, _ = torch.linalg.svd(_concatenated(deltas, scale), full_matrices=False)
    return basis[:, : rank(values)], values


def _by_left_gram(deltas: Sequence[Delta], rank: RankRule, scale: float) -> tuple[Tensor, Tensor]:
    """Eigenvectors of D·Dᵀ = Σ_t D_t·D_tᵀ, [out, out], one input at a time."""
    gram: Tensor | None = None
    for delta in deltas:
        matrix = _scaled(delta, scale)
        gram = matrix @ matrix.T if gram is None else gram.addmm_(matrix, matrix.T)
    assert gram is not None
    vectors, values = _descending_eigh(gram)
    return vectors[:, : rank(values)], values


def _by_right_gram(deltas: Sequence[Delta], rank: RankRule, scale: float) -> tuple[Tensor, Tensor]:
    """Eigenvectors V of Dᵀ·D, [T·in, T·in], the smaller side of a tall D; then U = D·V/s."""
    matrix = _concatenated(deltas, scale)
    vectors, values = _descending_eigh(matrix.T @ matrix)
    kept = rank(values)
    return matrix @ (vectors[:, :kept] / values[:kept]), values


def _descending_eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    eigenvalues, vectors = torch.linalg.eigh(gram)
    return vectors.flip(1), eigenvalues.flip(0).clamp_(min=0).sqrt_()


def _concatenated(deltas: Sequence[Delta], scale: float) -> Tensor:
    return torch.cat([_scaled(delta, scale) for delta in deltas], dim=1)


def _scaled(delta: Delta, scale: float) -> Tensor:
    """Return the delta in float64, its largest entry near 1 so that squares stay in range."""
    matrix = delta.to_dense()
    if matrix.device.type not in ("cpu", "cuda"):
        matrix = matrix.cpu()  # other devices lack float64 or eigh
    return matrix.double() / scale


def above_tolerance(rank_tolerance: float) -> RankRule:
    """Keep the directions with s_i > `rank_tolerance`·s_1 (0 ≤ rank_tolerance < 1).

    A tolerance below what float64 resolves is raised to that: the directions under it would be
    rounding noise, and DRM would blow them up to unit length.
    """

    def rank(values: Tensor) -> int:
        noise = torch.finfo(torch.float64).eps * 4 * values.numel()
        return int((values > max(rank_tolerance, noise) * values[0]).sum())

    return rank
