"""Singular triples of one delta, and the nearest matrix with orthonormal columns.

    D ≈ U diag(s) Vᵀ

Unlike `joint`, this gives both sides. Methods that change singular values, or put the singular
vectors of several inputs side by side, need both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mergekit_spectral.spectral.deltas import Delta, FactoredDelta
from mergekit_spectral.spectral.numerics import in_float64
from mergekit_spectral.spectral.svd.eigen import RankRule, count_kept, leading_eigenvectors
from mergekit_spectral.spectral.svd.joint import (
    GRAM_RESOLUTION,
    above_tolerance,
    decompose_dense,
    thin_svd,
)

DEPENDENT = 1e-6
"""Columns are dependent if they have a singular value of at most this share of the largest.

The nearest orthonormal matrix is discontinuous there: it gives any remaining direction unit length.
It must not be rounding noise, so singular vectors are computed in float64. The columns of a square
matrix are independent, but their smallest singular value is often 1e-4 of the largest.
"""


@dataclass(frozen=True)
class SingularTriples:
    """The k leading singular values of a delta D of shape [out, in], with their vectors.

    Attributes:
        U: left singular vectors, [out, k] in float64.
        values: singular values, [k] in float64, descending.
        V: right singular vectors, [in, k] in float64.
        dtype: the delta's working dtype.
        device: where the delta is used.
    """

    U: Tensor
    values: Tensor
    V: Tensor
    dtype: torch.dtype
    device: torch.device

    def scaled(self, factor: float) -> SingularTriples:
        """Return the triples of factor·D; of a negative factor, with negative values."""
        return replace(self, values=factor * self.values)

    def with_values(self, values: Tensor) -> FactoredDelta:
        """Return U·diag(values)·Vᵀ in the delta's working dtype.

        Args:
            values: [k] in float64.
        """
        left, right = self.U * values, self.V
        # Each factor is rounded once.
        return FactoredDelta(left.to(self.device, self.dtype), right.to(self.device, self.dtype).T)


def singular_triples(delta: Delta, rank: RankRule, few: bool = False) -> SingularTriples:
    """Return the leading singular triples of one delta.

    Those of a delta in factors B [out, r] and A [r, in] take 4·(out + in)·r² float64 operations.
    Those of a dense one take a Gram matrix of its shorter side (m²·n float64 multiplications for
    m ≤ n), its eigendecomposition (about 4·m³), and m·n·k multiplications for the other side.

    Args:
        delta: [out, in].
        rank: how many triples to keep; only those are computed.
        few: whether to expect that at most a quarter of them are kept.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    out_features, in_features = delta.shape
    if isinstance(delta, FactoredDelta):
        U, values, V = _of_factors(delta, rank)
    elif out_features <= in_features:
        U, values, V = _of_entries(delta, rank, few)
    else:
        V, values, U = _of_entries(delta.T, rank, few)
    return SingularTriples(U, values, V, delta.dtype, delta.device)


def _of_entries(delta: Delta, rank: RankRule, few: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, the values and V in float64 of a delta with out ≤ in."""
    U, spectrum = decompose_dense([delta], rank, GRAM_RESOLUTION, few, torch.float64)
    rows = U.new_empty(U.shape[1], delta.shape[1])
    for columns, block in delta.dense_columns():
        torch.mm(U.T, in_float64(block), out=rows[:, columns])
    # Uᵀ·D = diag(s)·Vᵀ, so each row is a vector of V times its length.
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    rows.div_(lengths.clamp_(min=torch.finfo(rows.dtype).tiny))
    return U, spectrum[: U.shape[1]], rows.T


def _of_factors(delta: FactoredDelta, rank: RankRule) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, the values and V in float64, from B = Q·R and Aᵀ = P·L and the SVD of R·Lᵀ."""
    Q, R = torch.linalg.qr(in_float64(delta.B))
    P, L = torch.linalg.qr(in_float64(delta.A).T)
    left, values, right = thin_svd(R @ L.T)
    k = count_kept(rank, values)
    return Q @ left[:, :k], values[:k], P @ right[:k].T


def at_most(limit: int, rule: RankRule) -> RankRule:
    """Keep as many directions as `rule` does, but no more than `limit`.

    Args:
        limit: number of directions.
        rule: another rule.

    Returns:
        A rule, as of `above_tolerance`.
    """
    return lambda values: min(limit, rule(values))


def nearest_orthonormal(columns: Sequence[Tensor]) -> Tensor:
    """Return the matrix with orthonormal columns that is nearest to X = [X_1 … X_T].

    With the thin SVD X = P·Σ·Qᵀ it is the polar factor P·Qᵀ, by a Gram matrix of the shorter side.
    Where columns are `DEPENDENT`, it is the nearest partial isometry: the directions that
    they lack are left out.

    Args:
        columns: T matrices [n, k_t] in float64.

    Returns:
        [n, k_1 + … + k_T].

    Raises:
        LinAlgError: if no algorithm converges.
    """
    X = torch.cat(list(columns), dim=1)
    if not X.numel():
        return X
    wide = X.shape[1] > X.shape[0]
    gram = X @ X.T if wide else X.T @ X
    vectors, roots = leading_eigenvectors(gram, above_tolerance(DEPENDENT), torch.float64)
    inverse_root = (vectors / roots[: vectors.shape[1]]) @ vectors.T
    return inverse_root @ X if wide else X @ inverse_root
