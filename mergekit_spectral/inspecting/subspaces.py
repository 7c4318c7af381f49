"""How far inputs point the same way: cosines of updates, overlaps of their leading subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral import Delta, FactoredDelta, JointDecomposition


@dataclass(frozen=True)
class Subspaces:
    """An update's leading singular vectors on both sides.

    Attributes:
        left: U, [out, k], orthonormal columns.
        right: V, [in, k], likewise.
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, decomposition: JointDecomposition, delta: Delta) -> Subspaces:
        """Return the kept directions of one delta's own decomposition."""
        left = decomposition.basis
        scale = decomposition.spectrum[: left.shape[1], None].to(left.dtype)
        return cls(left, (decomposition.coordinates(delta) / scale).T)


def overlap(one: Tensor, other: Tensor) -> float:
    """Return the mean squared cosine of the principal angles between two subspaces.

    It is 1 where one lies in the other, 0 where they are orthogonal, and k/n on average for a
    random one of k dimensions in n (Björck and Golub, 1973).

    Args:
        one: [n, k] with orthonormal columns.
        other: [n, l] likewise.
    """
    smaller = min(one.shape[1], other.shape[1])
    return float(torch.linalg.matrix_norm(one.T @ other) ** 2) / smaller if smaller else 0.0


def inner_products(deltas: Sequence[Delta]) -> Tensor:
    """Return ⟨D_i, D_j⟩ for all pairs of T deltas, [T, T] in float64, from factors where they are.

    ⟨B_i·A_i, B_j·A_j⟩ = tr(B_jᵀB_i·A_iA_jᵀ).
    """
    products = torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    factored = [delta for delta in deltas if isinstance(delta, FactoredDelta)]
    if len(factored) == len(deltas):
        for i, one in enumerate(factored):
            for j, other in enumerate(factored[: i + 1]):
                product = ((other.B.T @ one.B) * (other.A @ one.A.T)).sum()
                products[i, j] = products[j, i] = float(product)
        return products
    for blocks in zip(*(delta.dense_columns() for delta in deltas), strict=True):
        stacked = torch.stack([block.flatten() for _, block in blocks])
        products += (stacked @ stacked.T).double().cpu()
    return products
