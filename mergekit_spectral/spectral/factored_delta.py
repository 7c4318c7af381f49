"""Task deltas of low rank, as a LoRA adapter stores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from mergekit_spectral.spectral.blocks import slices
from mergekit_spectral.spectral.delta import AT_A_TIME, Delta, DenseDelta
from mergekit_spectral.spectral.precision import solvable

_CANCELLING = 16
"""A column of B·A that is shorter than what adds up to it by this factor has lost digits."""


class FactoredDelta(Delta):
    """A delta stored as a product of two factors, D = B·A.

    Args:
        B: [out, k], float32 or float64.
        A: [k, in], of the same dtype and device.
    """

    def __init__(self, B: Tensor, A: Tensor):
        self.B = B
        self.A = A

    @property
    def shape(self) -> tuple[int, int]:
        return self.B.shape[0], self.A.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.B.dtype

    @property
    def device(self) -> torch.device:
        return self.B.device

    @property
    def T(self) -> FactoredDelta:
        return FactoredDelta(self.A.T, self.B.T)

    @cached_property
    def column_norms(self) -> Tensor:
        # With B = Q·R, the columns of R·A are as long as those of B·A.
        R = torch.linalg.qr(solvable(self.B), mode="r").R
        norms: Tensor = torch.linalg.vector_norm(R @ solvable(self.A), dim=0)
        return norms.cpu()

    def is_zero(self) -> bool:
        return not (bool(self.A.any()) and bool(self.B.any()))

    def project(self, basis: Tensor) -> Tensor:
        return (basis.T @ self.B) @ self.A

    def projected_at(self, basis: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # Many places share few rows.
        own, which = torch.unique(rows, return_inverse=True)
        B = self.B.double()
        left = B.new_empty(len(own), B.shape[1])
        for part in slices(len(own), len(basis), AT_A_TIME):
            torch.mm(basis[:, own[part]].double().T, B, out=left[part])
        return (left[which] * self.A[:, columns].double().T).sum(1)

    @cached_property
    def rounding_norms(self) -> Tensor:
        # The columns of B·A may be far shorter than what adds up to them.
        B, A = solvable(self.B), solvable(self.A)
        norms: Tensor = torch.linalg.vector_norm(B, dim=0)
        return (norms.square() @ A.square()).sqrt_().cpu()

    def without_cancellation(self) -> FactoredDelta:
        """Return D in factors whose float32 products keep their digits.

        The columns of B may cancel, as those of PiSSA's adapters do: their factors hold a trained
        product minus the initial one. With B = Q·R in float64, D = Q·(R·A), and the columns of Q
        cannot cancel. Each factor is rounded once.
        """
        if not (self.rounding_norms > _CANCELLING * self.column_norms).any():
            return self
        Q, R = torch.linalg.qr(solvable(self.B))
        A = R @ solvable(self.A)
        return FactoredDelta(Q.to(self.B), A.to(self.A))

    def projected_lengths(self, basis: Tensor, rows: Tensor) -> Tensor:
        # With Aᵀ = P·L, the rows of (basisᵀ·B)·Lᵀ are as long as those of basisᵀ·B·A.
        L = torch.linalg.qr(self.A.double().T, mode="r").R
        left = basis[:, rows].double().T @ self.B.double()
        lengths: Tensor = torch.linalg.vector_norm(left @ L.T, dim=1)
        return lengths

    def scaled(self, factor: float) -> FactoredDelta:
        return FactoredDelta(self.B, factor * self.A)

    def to_dense(self) -> Tensor:
        return self.B @ self.A

    def rows(self, rows: slice) -> FactoredDelta:
        return FactoredDelta(self.B[rows], self.A)

    def columns(self, columns: slice | Tensor) -> FactoredDelta:
        return FactoredDelta(self.B, self.A[:, columns])

    def added_to(self, base: Tensor, scale: float) -> Tensor:
        return torch.addmm(base.to(self.device).to(self.dtype), self.B, self.A, alpha=scale)


def linear_combination(deltas: Iterable[FactoredDelta], weights: Sequence[float]) -> Delta:
    """Return Σ w_t·D_t, stored in whatever takes less: factors, or entries.

    In factors it is [B_1 … B_T]·[w_1·A_1; …; w_T·A_T], of k_1 + … + k_T columns.

    Args:
        deltas: T deltas of one shape [out, in], at least one. If they are made one by one, they
            are held no longer than they are needed.
        weights: T weights.
    """
    dense: Tensor | None = None
    thin: list[FactoredDelta] = []
    for delta, weight in zip(deltas, weights, strict=True):
        thin.append(delta.scaled(weight))
        out_features, in_features = delta.shape
        rank = sum(each.B.shape[1] for each in thin)
        if dense is not None or rank * (out_features + in_features) > out_features * in_features:
            dense = delta.B.new_zeros(delta.shape) if dense is None else dense
            for each in thin:
                dense.addmm_(each.B, each.A)
            thin = []
    if dense is not None:
        return DenseDelta(dense)
    return FactoredDelta(
        torch.cat([delta.B for delta in thin], dim=1), torch.cat([delta.A for delta in thin])
    )
