"""Task deltas of low rank, as a LoRA adapter stores them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.gram import solvable


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
    def norm(self) -> float:
        # ‖B·A‖² = tr(BᵀB·AAᵀ); factors that cancel can leave a rounding below zero.
        B, A = solvable(self.B), solvable(self.A)
        square = float(((B.T @ B) * (A @ A.T)).sum())
        return math.sqrt(max(square, 0.0))

    def is_zero(self) -> bool:
        return not (bool(self.A.any()) and bool(self.B.any()))

    def project(self, basis: Tensor) -> Tensor:
        return (basis.T @ self.B) @ self.A

    def scaled(self, factor: float) -> FactoredDelta:
        return FactoredDelta(self.B, factor * self.A)

    def to_dense(self) -> Tensor:
        return self.B @ self.A

    def rows(self, rows: slice) -> FactoredDelta:
        return FactoredDelta(self.B[rows], self.A)

    def columns(self, columns: slice) -> FactoredDelta:
        return FactoredDelta(self.B, self.A[:, columns])

    def added_to(self, base: Tensor, scale: float) -> Tensor:
        return torch.addmm(base.to(self.B.dtype), self.B, self.A, alpha=scale)


def linear_combination(deltas: Sequence[FactoredDelta], weights: Sequence[float]) -> FactoredDelta:
    """Return Σ w_t·B_t·A_t in factors of k_1 + … + k_T columns: [B_1 … B_T]·[w_1·A_1; …; w_T·A_T].

    Args:
        deltas: T deltas of one shape [out, in].
        weights: T weights.
    """
    return FactoredDelta(
        torch.cat([delta.B for delta in deltas], dim=1),
        torch.cat([delta.A * w for delta, w in zip(deltas, weights, strict=True)]),
    )
