"""The left singular vectors and singular values of [B_1·A_1 … B_T·A_T], from the factors alone.

No value of size out·in is made: with Σr the factors' columns it takes about 4·(out + in)·(Σr)²
float64 operations and (out + in)·Σr values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mergekit_spectral.spectral.eigen import leading_eigenvectors
from mergekit_spectral.spectral.gram import GRAM_RESOLUTION, RankRule, kept
from mergekit_spectral.spectral.precision import solvable


def decompose_factored(
    factors: Sequence[tuple[Tensor, Tensor]], rank: RankRule, resolution: float
) -> tuple[Tensor, Tensor]:
    """Return U [out, k] and all singular values that the factors can have, in float64.

    Args:
        factors: T pairs B_t [out, r_t] and A_t [r_t, in].
        rank: how many directions to keep.
        resolution: the smallest singular value, relative to the largest, that must come out right.
    """
    B = torch.cat([solvable(B) for B, _ in factors], dim=1)
    A = [solvable(A) for _, A in factors]
    # Columns of B to unit length, their lengths to A: how the two share a scale then has no say in
    # what counts as small.
    lengths = torch.linalg.vector_norm(B, dim=0).clamp(min=torch.finfo(B.dtype).tiny)
    B = B / lengths
    A = [n[:, None] * a for n, a in zip(torch.split(lengths, _ranks(A)), A, strict=True)]
    if not any(bool(a.any()) for a in A):
        return B[:, :0], B.new_zeros(0)
    fine = factors[0][0].dtype == torch.float64 or resolution < GRAM_RESOLUTION
    return _by_qr(B, A, rank) if fine else _by_gram(B, A, rank)


def _by_qr(B: Tensor, A: Sequence[Tensor], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose to float64's own precision.

    With B = Q·[R_1 … R_T] and A_tᵀ = P_t·L_t, the concatenation is
    Q·[R_1·L_1ᵀ … R_T·L_Tᵀ]·diag(P_1ᵀ … P_Tᵀ), and Q and the P_t have orthonormal columns: its
    singular values are those of the core in the middle, and U is Q times the core's.
    """
    Q, R = torch.linalg.qr(B)
    R_blocks = torch.split(R, _ranks(A), dim=1)
    L_blocks = [torch.linalg.qr(a.T, mode="r").R for a in A]
    core = torch.cat([R @ L.T for R, L in zip(R_blocks, L_blocks, strict=True)], dim=1)
    vectors, values, _ = torch.linalg.svd(core, full_matrices=False)
    return Q @ vectors[:, : kept(rank, values)], values


def _by_gram(B: Tensor, A: Sequence[Tensor], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose through BᵀB and the A_t·A_tᵀ: the same, with products in the place of QR.

    With BᵀB = W·Λ·Wᵀ, B is Q·R with R = Λ^½·Wᵀ and Q = B·W·Λ^-½, and the core's Gram matrix is
    Σ_t R_t·A_t·A_tᵀ·R_tᵀ.
    """
    W, roots = leading_eigenvectors(B.T @ B, _above_rounding, torch.float64)
    roots = roots[: W.shape[1]]
    R_blocks = torch.split(roots[:, None] * W.T, _ranks(A), dim=1)
    core = torch.stack([R @ (a @ a.T) @ R.T for R, a in zip(R_blocks, A, strict=True)]).sum(0)
    turn, values = leading_eigenvectors(core, rank, torch.float64)
    basis = B @ ((W / roots) @ turn)
    # Small roots leave the columns a little off orthonormal; one Cholesky step mends that.
    triangle = torch.linalg.cholesky(basis.T @ basis).T
    return torch.linalg.solve_triangular(triangle, basis, upper=True, left=False), values


def _above_rounding(values: Tensor) -> int:
    return int((values > 1e-7 * values[0]).sum())


def _ranks(A: Sequence[Tensor]) -> list[int]:
    return [len(a) for a in A]
