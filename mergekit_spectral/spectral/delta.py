"""Task deltas: the difference that fine-tuning made to one weight matrix.

A delta is asked for what a method needs of it, never for its entries, so that the methods need not
know whether it is stored dense or as two thin factors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK = 1 << 22
"""Entries in a block of rows: 16 MiB in float32."""


class Delta(ABC):
    """A task delta D of shape [out, in], in the working dtype (float32 or float64)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(out, in)."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The working dtype."""

    @property
    @abstractmethod
    def T(self) -> Delta:
        """The transpose, [in, out], sharing storage."""

    @abstractmethod
    def is_zero(self) -> bool:
        """Whether every entry is exactly zero (of a factored delta: of either factor)."""

    @abstractmethod
    def project(self, basis: Tensor) -> Tensor:
        """Return basisᵀ·D, [k, in], for a `basis` of shape [out, k]."""

    @abstractmethod
    def scaled(self, factor: float) -> Delta:
        """Return factor·D, stored as D is."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """Return D itself, [out, in]. It may share storage with this object."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Delta:
        """Return rows `start` to `stop` of D, sharing storage."""

    @abstractmethod
    def added_to(self, base: Tensor, scale: float) -> Tensor:
        """Return base + scale·D, [out, in], computed in the dtype of D and not rounded after."""

    def add_to(self, base: Tensor, scale: float, out: Tensor) -> None:
        """Write base + scale·D to `out`, rounded once to its dtype.

        It goes by blocks of rows, so that no whole matrix stands in the working dtype.

        Args:
            base: [out, in], of any dtype.
            scale: a number.
            out: [out, in]; may be `base` itself.
        """
        out_features, in_features = self.shape
        step = max(1, _BLOCK // max(1, in_features))
        for start in range(0, out_features, step):
            block = slice(start, start + step)
            part = self.rows(start, start + step)
            out[block] = part.added_to(base[block], scale)


class DenseDelta(Delta):
    """A delta stored entry by entry.

    Args:
        matrix: [out, in], float32 or float64.
    """

    def __init__(self, matrix: Tensor):
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        out_features, in_features = self.matrix.shape
        return out_features, in_features

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def T(self) -> DenseDelta:
        return DenseDelta(self.matrix.T)

    def is_zero(self) -> bool:
        return not bool(self.matrix.any())

    def project(self, basis: Tensor) -> Tensor:
        return basis.T @ self.matrix

    def scaled(self, factor: float) -> DenseDelta:
        return DenseDelta(factor * self.matrix)

    def to_dense(self) -> Tensor:
        return self.matrix

    def rows(self, start: int, stop: int) -> DenseDelta:
        return DenseDelta(self.matrix[start:stop])

    def added_to(self, base: Tensor, scale: float) -> Tensor:
        return torch.add(base.to(self.matrix.dtype), self.matrix, alpha=scale)


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
    def T(self) -> FactoredDelta:
        return FactoredDelta(self.A.T, self.B.T)

    def is_zero(self) -> bool:
        return not (bool(self.A.any()) and bool(self.B.any()))

    def project(self, basis: Tensor) -> Tensor:
        return (basis.T @ self.B) @ self.A

    def scaled(self, factor: float) -> FactoredDelta:
        return FactoredDelta(self.B, factor * self.A)

    def to_dense(self) -> Tensor:
        return self.B @ self.A

    def rows(self, start: int, stop: int) -> FactoredDelta:
        return FactoredDelta(self.B[start:stop], self.A)

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
