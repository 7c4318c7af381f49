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
from typing import cast

import torch
from torch import Tensor

from mergekit_spectral.spectral.delta import Delta, FactoredDelta
from mergekit_spectral.spectral.precision import exact_matmul

RankRule = Callable[[Tensor], int]
"""From all singular values, [n] in float64 and descending, to the number of directions to keep."""

# Squaring halves the digits: eigenvalues of a float64 Gram matrix are good to about 1e-16 of the
# largest, so singular values to about 1e-8 of the largest, with a margin for the matrix's size.
_GRAM_RESOLUTION = 1e-6

# Rounding leaves up to about 13 eps of an input's norm in a row that should be zero.
_ROUNDING = 32


@dataclass(frozen=True)
class JointDecomposition:
    """The k leading directions that the inputs share.

    Attributes:
        basis: U, [out, k], orthonormal columns in the working dtype, on the deltas' device.
        spectrum: s, float64, descending: all singular values, also those of directions that are
            not kept. For factored deltas only as many as their factors can have.
    """

    basis: Tensor
    spectrum: Tensor

    @exact_matmul()
    def coordinates(self, delta: Delta) -> Tensor:
        """Return one input in the shared basis, Uᵀ·D_t = diag(s)·V_tᵀ, [k, in].

        A row that is zero up to rounding is zero: an input that has no part in a direction must
        have no say in it either, and with noise in the row it would vote, and in DRM at full size.
        """
        rows = delta.project(self.basis)
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        noise = _ROUNDING * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(lengths)
        return rows.masked_fill_(lengths <= noise, 0)


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

    Cost of dense deltas, with m = min(out, T·in) and n = max(out, T·in): 2·m²·n + about 10·m³
    float64 operations and m² + 2·out·in values beside the inputs, or several times that when
    `resolution` asks for the plain SVD. Of deltas that are all factored, with Σr their columns:
    about 4·(out + in)·(Σr)² operations and (out + in)·Σr values, none of size out·in.
    """
    if all(isinstance(delta, FactoredDelta) for delta in deltas):
        return _of_factored(cast(Sequence[FactoredDelta], deltas), rank, resolution)
    return _of_dense(deltas, rank, resolution)


def _of_factored(
    deltas: Sequence[FactoredDelta], rank: RankRule, resolution: float
) -> JointDecomposition:
    """Decompose [B_1·A_1 … B_T·A_T] through a core as small as Σr, never forming a delta."""
    like = deltas[0].B
    if all(delta.is_zero() for delta in deltas):
        return JointDecomposition(like.new_zeros(like.shape[0], 0), like.new_zeros(0).double())
    B = torch.cat([_solvable(delta.B) for delta in deltas], dim=1)
    A = [_solvable(delta.A) for delta in deltas]
    # Columns of B to unit length, their lengths to A: how the two share a scale then has no say in
    # what counts as small.
    lengths = torch.linalg.vector_norm(B, dim=0).clamp(min=torch.finfo(B.dtype).tiny)
    B = B / lengths
    A = [n[:, None] * a for n, a in zip(torch.split(lengths, [len(a) for a in A]), A, strict=True)]
    fine = deltas[0].dtype == torch.float64 or resolution < _GRAM_RESOLUTION
    basis, spectrum = (_by_qr if fine else _by_gram_of_factors)(B, A, rank)
    return JointDecomposition(
        basis=basis.to(device=like.device, dtype=like.dtype), spectrum=spectrum.to(like.device)
    )


def _by_qr(B: Tensor, A: Sequence[Tensor], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose [B_1·A_1 … B_T·A_T] to float64's own precision.

    With B = Q·[R_1 … R_T] and A_tᵀ = P_t·L_t it is Q·[R_1·L_1ᵀ … R_T·L_Tᵀ]·diag(P_1ᵀ … P_Tᵀ), and
    Q and the P_t have orthonormal columns: its singular values are those of the core in the middle,
    and U is Q times the core's.
    """
    Q, R = torch.linalg.qr(B)
    R_blocks = torch.split(R, [len(a) for a in A], dim=1)
    L_blocks = [torch.linalg.qr(a.T, mode="r").R for a in A]
    core = torch.cat([R @ L.T for R, L in zip(R_blocks, L_blocks, strict=True)], dim=1)
    vectors, spectrum, _ = torch.linalg.svd(core, full_matrices=False)
    k = rank(spectrum)
    return Q @ vectors[:, :k], spectrum


def _by_gram_of_factors(B: Tensor, A: Sequence[Tensor], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose [B_1·A_1 … B_T·A_T] through BᵀB and the A_t·A_tᵀ, twenty times as fast as by QR.

    With BᵀB = W·Λ·Wᵀ, B is Q·R with R = Λ^½·Wᵀ and Q = B·W·Λ^-½, and the core's Gram matrix is
    Σ_t R_t·A_t·A_tᵀ·R_tᵀ.
    """
    vectors, values = _descending_eigh(B.T @ B)
    present = values > 1e-7 * values[0]  # what B has of a direction below this is rounding
    W, roots = vectors[:, present], values[present]
    R_blocks = torch.split(roots[:, None] * W.T, [len(a) for a in A], dim=1)
    core = torch.stack([R @ (a @ a.T) @ R.T for R, a in zip(R_blocks, A, strict=True)]).sum(0)
    turn, spectrum = _descending_eigh(core)
    k = rank(spectrum)
    basis = B @ ((W / roots) @ turn[:, :k])
    # Small roots leave the columns a little off orthonormal; one Cholesky step mends that.
    return torch.linalg.solve_triangular(
        torch.linalg.cholesky(basis.T @ basis).T, basis, upper=True, left=False
    ), spectrum


def _of_dense(deltas: Sequence[Delta], rank: RankRule, resolution: float) -> JointDecomposition:
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
    return _solvable(delta.to_dense()) / scale


def _solvable(matrix: Tensor) -> Tensor:
    """Return a matrix in float64, where there are float64 and LAPACK: on the CPU or on CUDA."""
    return (matrix if matrix.device.type in ("cpu", "cuda") else matrix.cpu()).double()


def above_tolerance(rank_tolerance: float) -> RankRule:
    """Keep the directions with s_i > `rank_tolerance`·s_1 (0 ≤ rank_tolerance < 1).

    A tolerance below what float64 resolves is raised to that: the directions under it would be
    rounding noise, and DRM would blow them up to unit length.
    """

    def rank(values: Tensor) -> int:
        noise = torch.finfo(torch.float64).eps * 4 * values.numel()
        return int((values > max(rank_tolerance, noise) * values[0]).sum())

    return rank
