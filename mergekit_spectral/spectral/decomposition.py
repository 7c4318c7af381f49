"""The joint singular value decomposition of several task deltas.

    [D_1 … D_T] = U diag(s) [V_1ᵀ … V_Tᵀ]

Only U and s are made. Input t's share of the right side follows by projection, which costs one
product, is exact where the deltas are, and can be done for one input, or a part of one, at a time:
diag(s)·V_tᵀ = Uᵀ·D_t.

References: KnOTS, arXiv 2410.19735, §4; Decom-Renorm-Merge, «Decompose».
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.blocks import CACHE_BLOCK, slices
from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.dense_svd import decompose_dense
from mergekit_spectral.spectral.factored_delta import FactoredDelta
from mergekit_spectral.spectral.factored_svd import decompose_factored
from mergekit_spectral.spectral.gram import GRAM_RESOLUTION, LinAlgError, RankRule
from mergekit_spectral.spectral.precision import TIE, exact_matmul

# Rounding leaves up to about 13 eps of an input's norm in a row that should be zero.
_ROUNDING = 32

_EXACT_AT_MOST = 1 << 22
"""Entries of a basis that is kept in float64 too, for decisions: 32 MiB."""


@dataclass(frozen=True)
class JointDecomposition:
    """The k leading directions that the inputs share.

    Attributes:
        basis: U, [out, k], orthonormal columns in the working dtype, on the deltas' device.
        spectrum: s, float64, descending: all singular values, also those of directions that are
            not kept. For factored deltas only as many as their factors can have.
        exact_basis: U in float64, where it has been made so and is not large; else None.
    """

    basis: Tensor
    spectrum: Tensor
    exact_basis: Tensor | None = None

    @property
    def finest_basis(self) -> Tensor:
        """U in float64 where it is there, else as it is."""
        return self.basis if self.exact_basis is None else self.exact_basis

    @exact_matmul()
    def coordinates(self, delta: Delta, directions: slice = slice(None)) -> Tensor:
        """Return one input in the shared basis, Uᵀ·D_t = diag(s)·V_tᵀ, [k, in].

        What is zero up to rounding is zero: an entry below `TIE` of its column's length, and a row
        below the noise of the working dtype. With noise in their place, an input would vote in
        directions that it has no part in, and in DRM at full size.

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
        noise = lengths <= _ROUNDING * torch.finfo(rows.dtype).eps * delta.norm
        if noise.any():
            rows[noise] = 0
        return without_noise(rows, delta.column_norms)


def without_noise(coordinates: Tensor, column_norms: Tensor) -> Tensor:
    """Zero the entries that are at most `TIE` of their columns' lengths, in place.

    Args:
        coordinates: [k, in].
        column_norms: the lengths of the delta's columns, [in].
    """
    limits = (TIE * column_norms).to(coordinates)
    for part in slices(len(coordinates), coordinates.shape[1], CACHE_BLOCK):
        magnitudes = coordinates[part].abs()
        coordinates[part].mul_(torch.gt(magnitudes, limits, out=magnitudes))
    return coordinates


def row_lengths(rows: Tensor) -> Tensor:
    """Return the Euclidean norms of rows, in float64 where the device has it."""
    dtype = torch.float64 if rows.device.type in ("cpu", "cuda") else rows.dtype
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
) -> JointDecomposition:
    """Decompose the horizontal concatenation of `deltas`, [out, T·in].

    Args:
        deltas: T deltas of one shape [out, in] and one dtype, at least one.
        rank: how many directions to keep; only those are made.
        resolution: the smallest singular value, relative to the largest, that must come out
            right. Float64 deltas are always resolved to float64's own precision.
        few: whether to expect that less than half of the directions are kept.

    Returns:
        The kept directions and the whole spectrum; no directions if all deltas are zero.

    Raises:
        LinAlgError: if no algorithm converges.

    Deltas that are all factored are decomposed from their factors; a dense one among them makes it
    a decomposition of dense matrices.
    """
    factors = [(delta.B, delta.A) for delta in deltas if isinstance(delta, FactoredDelta)]
    if len(factors) == len(deltas):
        basis, spectrum = decompose_factored(factors, rank, resolution)
    else:
        basis, spectrum = decompose_dense(deltas, rank, resolution, few)
    device, dtype = deltas[0].device, deltas[0].dtype
    exact = basis.dtype == torch.float64 != dtype and basis.numel() <= _EXACT_AT_MOST and not few
    return JointDecomposition(
        basis=basis.to(device=device, dtype=dtype),
        spectrum=spectrum.to(device),
        exact_basis=basis if exact and basis.device == device else None,
    )


def above_tolerance(rank_tolerance: float) -> RankRule:
    """Keep the directions with s_i > `rank_tolerance`·s_1 (0 ≤ rank_tolerance < 1).

    One that exceeds it by no more than the share `TIE` does not exceed it.
    A tolerance below what float64 resolves is raised to that: the directions under it would be
    rounding noise, and DRM would blow them up to unit length.
    """

    def rank(values: Tensor) -> int:
        noise = torch.finfo(torch.float64).eps * 4 * values.numel()
        return int((values > max((1 + TIE) * rank_tolerance, noise) * values[0]).sum())

    return rank
