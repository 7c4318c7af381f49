"""Measures of updates: effective and stable rank, inner products, overlap of subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral import Delta, FactoredDelta, JointDecomposition


def effective_rank(spectrum: Tensor) -> float:
    """Return the exponential of the entropy of the singular values' shares of their sum.

    It is n for n equal singular values. See Roy and Vetterli, "The effective rank: a measure of
    effective dimensionality", 2007.

    Args:
        spectrum: singular values, [n], not all zero.
    """
    shares = spectrum[spectrum > 0] / spectrum.sum()
    return float((-(shares * shares.log()).sum()).exp())


def stable_rank(spectrum: Tensor) -> float:
    """Return ‖D‖_F² / s_1², from 1 to n.

    Args:
        spectrum: singular values, [n], descending, not all zero.
    """
    return float(torch.sum((spectrum / spectrum[0]) ** 2))


@dataclass(frozen=True)
class Subspaces:
    """An update's leading singular vectors on both sides.

    Attributes:
        left: U, [out, k], with orthonormal columns.
        right: V, [in, k], with orthonormal columns.
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, decomposition: JointDecomposition, delta: Delta) -> Subspaces:
        """Return the subspaces from the decomposition of a single delta."""
        left = decomposition.basis
        scale = decomposition.spectrum[: left.shape[1], None].to(left.dtype)
        return cls(left, (decomposition.coordinates(delta) / scale).T)


def overlap(one: Tensor, other: Tensor) -> float:
    """Return the mean squared cosine of the principal angles between two subspaces.

    It is 1 if one subspace contains the other, and 0 if they are orthogonal. For a random subspace
    of k of n dimensions it is k/n on average (Björck and Golub, 1973).

    Args:
        one: basis of a subspace, [n, k], with orthonormal columns.
        other: basis of the other subspace, [n, l], with orthonormal columns.
    """
    smaller = min(one.shape[1], other.shape[1])
    return float(torch.linalg.matrix_norm(one.T @ other) ** 2) / smaller if smaller else 0.0


def inner_products(deltas: Sequence[Delta]) -> Tensor:
    """Return ⟨D_i, D_j⟩ for all pairs of T deltas, [T, T] in float64.

    If all deltas are factored, it is computed from the factors alone:
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
