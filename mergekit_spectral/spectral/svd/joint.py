"""The joint singular value decomposition of several task deltas.

    [D_1 … D_T] = U diag(s) [V_1ᵀ … V_Tᵀ]

Only U and s are computed. Input t's share of the right side follows from a product,
diag(s)·V_tᵀ = Uᵀ·D_t. It is as exact as the delta, and can be computed for one input, or for some
of its rows, at a time.

Dense deltas are decomposed through a Gram matrix: the eigenvectors of D·Dᵀ are D's left singular
vectors, and its eigenvalues the squares of their singular values. Deltas in factors are decomposed
from their factors. Neighbouring singular values of real deltas lie close, so a Gram matrix or an
eigendecomposition in float32 would turn the vectors: both are computed in float64.

References: KnOTS, arXiv 2410.19735, §4; Decom-Renorm-Merge, "Decompose".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from scipy.linalg import blas
from torch import Tensor

from mergekit_spectral.spectral.deltas import Delta, FactoredDelta
from mergekit_spectral.spectral.numerics import (
    CACHE_BLOCK,
    TIE,
    exact_matmul,
    has_float64,
    in_float64,
    rounding,
    slices,
    threads_compete,
)
from mergekit_spectral.spectral.svd.eigen import (
    LinAlgError,
    RankRule,
    count_kept,
    leading_eigenvectors,
)

GRAM_RESOLUTION = 1e-6
"""The smallest singular value, relative to the largest, that a float64 Gram matrix resolves.

Squaring halves the digits: eigenvalues come out to about 1e-16 of the largest, so singular values
to about 1e-8 of the largest, with a margin for the matrix's size.
"""

_PANELS = 8
"""Parts of a Gram matrix that a GPU computes one after the other, without what lies below them."""

_EXACT_AT_MOST = 1 << 22
"""Entries of the largest basis that is also kept in float64, for decisions: 32 MiB."""


@dataclass(frozen=True)
class JointDecomposition:
    """The k leading directions that the inputs share.

    Attributes:
        basis: U, [out, k], orthonormal columns in the working dtype, on the deltas' device.
        spectrum: s, float64, descending: all singular values, also those of directions that are
            not kept. For factored deltas only as many as their factors can have.
        exact_basis: U in float64, where it was computed so and is not large; else None.
    """

    basis: Tensor
    spectrum: Tensor
    exact_basis: Tensor | None = None

    @property
    def finest_basis(self) -> Tensor:
        """U in float64 where that is available, else in the working dtype."""
        return self.basis if self.exact_basis is None else self.exact_basis

    def coordinates(self, delta: Delta, directions: slice = slice(None)) -> Tensor:
        """Return one input in the shared basis, Uᵀ·D_t = diag(s)·V_tᵀ, [k, in].

        What is zero but for rounding is set to zero: an entry below `TIE` of its column's length,
        and a row below the noise of the working dtype. Otherwise an input would vote in directions
        that it has no part in, and in DRM at full size. Call it within `exact_matmul`.

        Args:
            delta: D_t, [out, in].
            directions: which of the k; all by default.

        Raises:
            LinAlgError: if a row is out of the working dtype's range.
        """
        rows = delta.project(self.basis[:, directions])
        lengths = row_lengths(rows)
        if not lengths.isfinite().all():
            raise LinAlgError("the coordinates are out of their dtype's range")
        noise = lengths <= rounding(rows.dtype) * delta.norm
        if noise.any():
            rows[noise] = 0
        return without_noise(rows, delta.column_norms)


def without_noise(coordinates: Tensor, column_norms: Tensor) -> Tensor:
    """Zero the entries that are at most `TIE` of their columns' lengths, in place.

    Args:
        coordinates: [k, n], in columns of one or of several deltas.
        column_norms: the lengths of those deltas' columns, [n].
    """
    limits = (TIE * column_norms).to(coordinates)
    for part in slices(len(coordinates), coordinates.shape[1], CACHE_BLOCK):
        magnitudes = coordinates[part].abs()
        coordinates[part].mul_(torch.gt(magnitudes, limits, out=magnitudes))
    return coordinates


def row_lengths(rows: Tensor) -> Tensor:
    """Return the Euclidean norms of rows, in float64 where the device has it."""
    dtype = torch.float64 if has_float64(rows.device) else rows.dtype
    # In parts: PyTorch converts the whole of them first.
    parts = [
        torch.linalg.vector_norm(rows[part], dim=1, dtype=dtype)
        for part in slices(len(rows), rows.shape[1], CACHE_BLOCK)
    ]
    return torch.cat(parts) if parts else rows.new_empty(0, dtype=dtype)


@exact_matmul()
def joint_decomposition(
    deltas: Sequence[Delta],
    rank: RankRule,
    resolution: float = GRAM_RESOLUTION,
    few: bool = False,
    exact: bool = True,
) -> JointDecomposition:
    """Decompose the horizontal concatenation of `deltas`, [out, T·in].

    Deltas that are all in factors are decomposed from the factors. If one is dense, all are
    decomposed as dense matrices.

    Args:
        deltas: T deltas of one shape [out, in] and one dtype, at least one.
        rank: how many directions to keep; only those are computed.
        resolution: the smallest singular value, relative to the largest, that must be right.
            Float64 deltas are always resolved to float64's own precision.
        few: whether to expect that at most a quarter of the directions are kept.
        exact: whether `exact_basis` is wanted, for entries that are decided in float64.

    Returns:
        The kept directions and the whole spectrum; no directions if all deltas are zero.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    factors = [(delta.B, delta.A) for delta in deltas if isinstance(delta, FactoredDelta)]
    if len(factors) == len(deltas):
        basis, spectrum = _decompose_factored(factors, rank, resolution)
    else:
        # A quarter of the directions are the most that are expected.
        small = deltas[0].shape[0] ** 2 // 4 <= _EXACT_AT_MOST
        finest = torch.float64 if few and exact and small else None
        basis, spectrum = decompose_dense(deltas, rank, resolution, few, finest)
    device, dtype = deltas[0].device, deltas[0].dtype
    exact &= basis.dtype == torch.float64 != dtype and basis.numel() <= _EXACT_AT_MOST
    return JointDecomposition(
        basis=basis.to(device=device, dtype=dtype),
        spectrum=spectrum.to(device),
        exact_basis=basis if exact and basis.device == device else None,
    )


def above_tolerance(rank_tolerance: float) -> RankRule:
    """Keep the directions with s_i > `rank_tolerance`·s_1.

    One that exceeds the limit by a share of at most `TIE` counts as equal to it. A tolerance below
    what float64 resolves is raised to that: the directions below it are rounding noise, and DRM
    would scale them up to unit length.

    Args:
        rank_tolerance: the largest share of s_1 that is not kept, 0 ≤ rank_tolerance < 1.

    Returns:
        A rule, which takes singular values [n], descending, and returns how many to keep.
    """

    def rank(values: Tensor) -> int:
        noise = torch.finfo(torch.float64).eps * 4 * values.numel()
        return int((values > max((1 + TIE) * rank_tolerance, noise) * values[0]).sum())

    return rank


def leading(limit: int, rule: RankRule) -> RankRule:
    """Keep as many directions as `rule` does, but no more than the `limit` largest.

    Those whose singular values are within `TIE`·s_1 of the last kept one are kept too: which of
    them come first is arbitrary.

    Args:
        limit: number of directions, at least 1.
        rule: another rule.

    Returns:
        A rule, as of `above_tolerance`.
    """

    def rank(values: Tensor) -> int:
        kept = values[: rule(values)]
        if len(kept) <= limit:
            return len(kept)
        return int((kept >= kept[limit - 1] - TIE * kept[0]).sum())

    return rank


# Dense deltas


def decompose_dense(
    deltas: Sequence[Delta],
    rank: RankRule,
    resolution: float,
    few: bool = False,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Decompose in the cheapest way that resolves singular values down to `resolution`·s_1.

    With m = min(out, T·in) and n = max(out, T·in), a Gram matrix takes m²·n float64 multiplications
    and its eigendecomposition about 4·m³. Where its resolution is not enough, a triangular factor
    is used instead, which takes several times as long. Neither decomposes a matrix of size
    [out, T·in], and unless that is tall, neither holds one.

    Args:
        deltas: T deltas of one shape [out, in], not all zero.
        rank: how many directions to keep; only those are computed.
        resolution: the smallest singular value, relative to the largest, that must be right.
        few: whether to expect that at most a quarter of the directions are kept.
        dtype: the least precise dtype that U may have; by default the deltas' working dtype.

    Returns:
        U, [out, k], and all singular values in float64, descending.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    out_features, in_features = deltas[0].shape
    tall = out_features > in_features * len(deltas)
    if deltas[0].dtype == torch.float64 or resolution < GRAM_RESOLUTION:
        return (_by_tall_triangle if tall else _by_triangle)(deltas, rank)
    if tall:
        return _by_right_gram(deltas, rank, few)
    return leading_eigenvectors(_gram_matrix(deltas), rank, dtype or deltas[0].dtype, few)


def _by_right_gram(deltas: Sequence[Delta], rank: RankRule, few: bool) -> tuple[Tensor, Tensor]:
    """Eigenvectors V of Dᵀ·D, [T·in, T·in], the smaller side of a tall D; then U = D·V/s."""
    D = _concatenated(deltas)
    vectors, values = leading_eigenvectors(D.T @ D, rank, torch.float64, few)
    return D @ (vectors / values[: vectors.shape[1]]), values


def _by_triangle(deltas: Sequence[Delta], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose to float64's own precision, through Dᵀ = Q·R and the SVD of Rᵀ, [out, out].

    R is computed step by step: with R_1 the factor of the columns so far, the next factor is that
    of [R_1; next columns].
    """
    side = deltas[0].shape[0]
    rows = [in_float64(torch.empty(0, side, device=deltas[0].device))]
    for delta in deltas:
        for _, block in delta.dense_columns():
            rows.append(in_float64(block).T.clone())
            # As many rows as R has: with fewer, R would be factored over and over.
            if sum(map(len, rows)) >= 2 * side:
                rows = [torch.linalg.qr(torch.cat(rows), mode="r").R]
    U, values, _ = thin_svd(torch.linalg.qr(torch.cat(rows), mode="r").R.T)
    return U[:, : count_kept(rank, values)], values


def _by_tall_triangle(deltas: Sequence[Delta], rank: RankRule) -> tuple[Tensor, Tensor]:
    """The same for a tall D = Q·R: U is Q times that of R, [T·in, T·in]."""
    Q, R = torch.linalg.qr(_concatenated(deltas))
    U, values, _ = thin_svd(R)
    return Q @ U[:, : count_kept(rank, values)], values


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, the singular values and Vᵀ of a matrix in float64.

    Raises:
        LinAlgError: if no algorithm converges, or the matrix is not finite.
    """
    if not matrix.isfinite().all():
        raise LinAlgError("the entries are out of float64's range")
    try:
        U, values, Vh = torch.linalg.svd(matrix, full_matrices=False)
    except LinAlgError:
        # Slower than divide and conquer, but it hardly ever fails.
        try:
            parts = scipy.linalg.svd(
                matrix.cpu().numpy(), full_matrices=False, lapack_driver="gesvd"
            )
        except scipy.linalg.LinAlgError as error:
            raise LinAlgError(str(error)) from error
        U, values, Vh = (torch.from_numpy(part).to(matrix.device) for part in parts)
    return U, values, Vh


def _concatenated(deltas: Sequence[Delta]) -> Tensor:
    return torch.cat([in_float64(delta.to_dense()) for delta in deltas], dim=1)


def _gram_matrix(deltas: Sequence[Delta]) -> Tensor:
    """Return Σ_t D_t·D_tᵀ, [out, out] in float64, of which only the upper triangle is computed.

    It takes T·out²·in/2 multiplications, and 8·out² bytes beside a block of one delta. Consumer
    GPUs compute in float64 at a 32nd or 64th of their speed, which is still several times a CPU's.
    The squares of float32 numbers need no scaling: all are within float64's range.

    Args:
        deltas: T deltas of one shape [out, in], in float32.
    """
    side = deltas[0].shape[0]
    gram = in_float64(torch.empty(0, device=deltas[0].device)).new_zeros(side, side)
    for delta in deltas:
        buffer = gram.new_empty(0)
        for _, block in delta.dense_columns():
            if not buffer.numel():
                buffer = gram.new_empty(block.numel())
            _add_square(gram, buffer[: block.numel()].view(block.shape).copy_(block))
    return gram


def _add_square(gram: Tensor, block: Tensor) -> None:
    """Add B·Bᵀ to the upper triangle of a matrix [n, n], for a contiguous B [n, width]."""
    if gram.device.type != "cpu" or threads_compete(len(gram)):
        panel = -(-len(gram) // _PANELS)
        for start in range(0, len(gram), panel):
            rows = slice(start, start + panel)
            gram[rows, start:].addmm_(block[rows], block[start:].T)
        return
    # BLAS has a product for this, which takes a seventh less time than panels. It reads columns:
    # the transpose of the upper triangle is a lower one, without a copy.
    columns = gram.numpy().T
    result = blas.dsyrk(1.0, block.numpy().T, beta=1.0, c=columns, trans=1, lower=1, overwrite_c=1)
    assert np.shares_memory(result[:1], columns[:1])


# Deltas in factors


def _decompose_factored(
    factors: Sequence[tuple[Tensor, Tensor]], rank: RankRule, resolution: float
) -> tuple[Tensor, Tensor]:
    """Return U, [out, k], and all singular values that the factors can have, in float64.

    No matrix of size [out, in] is computed. With Σr the number of all factors' columns, it takes
    about 4·(out + in)·(Σr)² float64 operations and (out + in)·Σr values.

    Args:
        factors: T pairs B_t [out, r_t] and A_t [r_t, in].
        rank: how many directions to keep.
        resolution: the smallest singular value, relative to the largest, that must be right.
    """
    B = in_float64(torch.cat([B for B, _ in factors], dim=1))
    rows = in_float64(torch.cat([A for _, A in factors]))
    # The columns of B get unit length and A gets their lengths, so that what counts as small does
    # not depend on how B and A share their scale.
    lengths = torch.linalg.vector_norm(B, dim=0).clamp(min=torch.finfo(B.dtype).tiny)
    B = B / lengths
    rows = lengths[:, None] * rows
    if not rows.any():
        return B[:, :0], B.new_zeros(0)
    A = torch.split(rows, [len(A) for _, A in factors])
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
    return Q @ vectors[:, : count_kept(rank, values)], values


def _by_gram(B: Tensor, A: Sequence[Tensor], rank: RankRule) -> tuple[Tensor, Tensor]:
    """Decompose through BᵀB and the A_t·A_tᵀ: the same, with products instead of QR.

    With BᵀB = W·Λ·Wᵀ, B is Q·R with R = Λ^½·Wᵀ and Q = B·W·Λ^-½, and the core's Gram matrix is
    Σ_t R_t·A_t·A_tᵀ·R_tᵀ.
    """
    W, roots = leading_eigenvectors(B.T @ B, _above_rounding, torch.float64)
    roots = roots[: W.shape[1]]
    R_blocks = torch.split(roots[:, None] * W.T, _ranks(A), dim=1)
    core = torch.stack([R @ (a @ a.T) @ R.T for R, a in zip(R_blocks, A, strict=True)]).sum(0)
    turn, values = leading_eigenvectors(core, rank, torch.float64)
    basis = B @ ((W / roots) @ turn)
    # Small roots leave the columns not quite orthonormal; one Cholesky step corrects that.
    triangle = torch.linalg.cholesky(basis.T @ basis).T
    return torch.linalg.solve_triangular(triangle, basis, upper=True, left=False), values


def _above_rounding(values: Tensor) -> int:
    return int((values > 1e-7 * values[0]).sum())


def _ranks(A: Sequence[Tensor]) -> list[int]:
    return [len(a) for a in A]
