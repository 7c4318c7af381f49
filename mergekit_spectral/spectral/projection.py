"""Bases of low rank that several deltas in factors share, one for each side.

    D_t ≈ U·(Uᵀ·D_t·V)·Vᵀ for all t, with U [out, r] and V [in, r]

A merge of deltas that were projected onto such bases has rank r at most. The bases are to make

    Σ_t w_t²·‖Uᵀ·D_t·V‖² / ‖D_t‖²

large. Inputs of equal weight count equally, however small their updates are. Which of them keeps
more of itself depends on their spectra: a few directions hold more of an update with a steep
spectrum. There is no closed form for both sides at once, so each side in turn is optimized for the
other (higher-order orthogonal iteration), which finds a local maximum.

Reference: compress then merge, arXiv 2606.03723, which divides by ‖D_t‖^½ instead of ‖D_t‖².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.deltas import FactoredDelta
from mergekit_spectral.spectral.numerics import TIE, exact_matmul, in_float64, rounding
from mergekit_spectral.spectral.svd.eigen import leading_eigenvectors
from mergekit_spectral.spectral.svd.joint import GRAM_RESOLUTION, above_tolerance
from mergekit_spectral.spectral.svd.triples import at_most

Core = tuple[Tensor, Tensor]
"""L [a, r_t] and K [b, r_t] of a matrix L·Kᵀ."""

ITERATIONS = 3
"""Times that each side is optimized. A fixed number, so that rounding does not decide when to stop.

On the demo's adapters, at rank 4 of 12, both sides' own leading directions keep 80.9% of the
squared norms, one iteration 82.4%, two 82.5%, and twenty hardly more.
"""


@dataclass(frozen=True)
class SharedBases:
    """Orthonormal bases of both sides, with at most r directions each.

    Attributes:
        left: U, [out, ≤ r] in float64.
        right: V, [in, ≤ r] in float64.
        kept: the mean share of the deltas' squared norms in the bases, weighted by w_t², 0 to 1.
    """

    left: Tensor
    right: Tensor
    kept: float

    @exact_matmul()
    def project(self, delta: FactoredDelta) -> FactoredDelta:
        """Return U·(Uᵀ·D·V)·Vᵀ in factors.

        It is in float64, so that rounding does not give the projected deltas directions of
        their own. A delta outside the bases, but for rounding, becomes exactly zero: the directions
        of its rounding errors would count as those of an input.
        """
        core = (self.left.T @ in_float64(delta.B)) @ (in_float64(delta.A) @ self.right)
        if float(torch.linalg.matrix_norm(core)) <= rounding(delta.dtype) * delta.norm:
            core = torch.zeros_like(core)
        return FactoredDelta(self.left, core @ self.right.T)


@exact_matmul()
def shared_bases(
    deltas: Sequence[FactoredDelta], weights: Sequence[float], rank: int
) -> SharedBases:
    """Return bases of at most `rank` directions that keep much of the deltas together.

    With R the number of all factors' columns, it takes about 4·(out + in)·R² float64 operations
    for the factors of the cores Q_Bᵀ·D_t·Q_A, which have R² numbers on each side. Everything else
    is computed from these. If directions keep equally much, those of Σ w_t·D_t are preferred.

    Args:
        deltas: T deltas of one shape [out, in], at least one.
        weights: T weights w_t; a delta of weight 0 has no effect.
        rank: r, at least 1. If all deltas together have fewer directions, so have the bases.

    Raises:
        LinAlgError: if no algorithm converges.
    """
    Q_B, R_B = torch.linalg.qr(in_float64(torch.cat([delta.B for delta in deltas], dim=1)))
    Q_A, R_A = torch.linalg.qr(in_float64(torch.cat([delta.A for delta in deltas])).T)
    ranks = [delta.B.shape[1] for delta in deltas]
    blocks = zip(weights, R_B.split(ranks, dim=1), R_A.split(ranks, dim=1), strict=True)
    cores = [(w * left, right) for w, left, right in blocks]
    balanced = [
        _divided(core, _norm(core) / abs(w or 1)) for w, core in zip(weights, cores, strict=True)
    ]
    total = torch.cat([left for left, _ in cores], dim=1), R_A
    # The sum's share is far below what means something: it decides only ties.
    stack = [*balanced, _divided(total, _norm(total) / TIE**0.5)]
    turned = [(right, left) for left, right in stack]

    whole = R_A.new_zeros(len(R_A), len(R_A))
    for own, other in stack:
        whole.addmm_(other @ (own.T @ own), other.T)
    right = _leading(whole, rank)
    left = right[:, :0]
    for _ in range(ITERATIONS):
        left = _leading(_gram(stack, right), rank)
        right = _leading(_gram(turned, left), rank)
    inside = [(left.T @ own, right.T @ other) for own, other in balanced]
    squares = sum(_norm(core) ** 2 for core in balanced)
    kept = sum(_norm(core) ** 2 for core in inside) / squares if squares else 1.0
    return SharedBases(Q_B @ left, Q_A @ right, kept)


def _norm(core: Core) -> float:
    """Return the Frobenius norm of L·Kᵀ."""
    left, right = core
    return float(((left.T @ left) * (right.T @ right)).sum().clamp(min=0).sqrt())


def _divided(core: Core, number: float) -> Core:
    """Return a core divided by a number, or as it is if the number is 0."""
    left, right = core
    return left / (number or 1), right


def _gram(cores: Sequence[Core], basis: Tensor) -> Tensor:
    """Return Σ N·V·Vᵀ·Nᵀ over cores N = L·Kᵀ [a, b], for a basis V [b, r]."""
    images = torch.cat([left @ (right.T @ basis) for left, right in cores], dim=1)
    return images @ images.T


def _leading(gram: Tensor, rank: int) -> Tensor:
    """Return the leading eigenvectors, [a, ≤ rank], of a Gram matrix."""
    rule = at_most(rank, above_tolerance(GRAM_RESOLUTION))
    return leading_eigenvectors(gram, rule, torch.float64, few=True)[0]
