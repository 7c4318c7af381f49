"""Task deltas: the difference that fine-tuning made to one weight matrix.

Methods ask a delta for products and norms, not for its entries, so they need not distinguish a
difference of two weights (`DenseDelta`) from a product of two thin factors (`FactoredDelta`).
Entries are computed where they are used, a block at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import itemgetter

import torch
from torch import Tensor

from mergekit_spectral.spectral.numerics import (
    DELTA_BLOCK,
    has_float64,
    in_float64,
    slices,
    working_dtype,
)

_AT_A_TIME = 1 << 20
"""Entries of a basis laid out in float64 for single entries of a projection: 8 MiB."""

_CROWDED = 8
"""With a place in every eighth column, to read all columns in order takes less time than those."""

_SMALL_NORM = 1e-15
"""Norms below this one may have lost squares to float32's range."""

_CANCELLING = 16
"""A column of B·A that is shorter than what adds up to it by this factor has lost digits."""


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
    def device(self) -> torch.device:
        """Where D is used, and its blocks are made."""

    @property
    @abstractmethod
    def T(self) -> Delta:
        """The transpose, [in, out], sharing storage."""

    @property
    @abstractmethod
    def column_norms(self) -> Tensor:
        """The Euclidean norms of D's columns, [in], in float64 on the CPU."""

    @property
    def rounding_norms(self) -> Tensor:
        """What rounding in a product with D is relative to, [in], in float64 on the CPU."""
        return self.column_norms

    @cached_property
    def norm(self) -> float:
        """The Frobenius norm."""
        return float(torch.linalg.vector_norm(self.column_norms))

    @abstractmethod
    def is_zero(self) -> bool:
        """Whether every entry is exactly zero (of a factored delta: of either factor)."""

    @abstractmethod
    def project(self, basis: Tensor) -> Tensor:
        """Return basisᵀ·D, [k, in], for a `basis` of shape [out, k]."""

    @abstractmethod
    def projected_at(self, basis: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return single entries of basisᵀ·D in float64.

        Args:
            basis: [out, k].
            rows: of basisᵀ·D, n indices.
            columns: as many.
        """

    @abstractmethod
    def projected_lengths(self, basis: Tensor, rows: Tensor) -> Tensor:
        """Return the Euclidean norms of single rows of basisᵀ·D in float64.

        Args:
            basis: [out, k].
            rows: of basisᵀ·D, n different indices.
        """

    @abstractmethod
    def scaled(self, factor: float) -> Delta:
        """Return factor·D, stored as D is."""

    @abstractmethod
    def in_float64(self) -> Delta:
        """Return D with float64 as its working dtype, on a device that has it."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """Return D itself, [out, in]. It may share storage with this object."""

    @abstractmethod
    def rows(self, rows: slice) -> Delta:
        """Return some rows of D, sharing storage."""

    @abstractmethod
    def columns(self, columns: slice | Tensor) -> Delta:
        """Return some columns of D, sharing storage if they are given as a slice."""

    def dense_columns(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield D entry by entry in blocks of columns: which ones, and the block, [out, width].

        The next block may overwrite the one before.
        """
        out_features, in_features = self.shape
        for columns in slices(in_features, out_features, DELTA_BLOCK):
            yield columns, self.columns(columns).to_dense()

    @abstractmethod
    def added_to(self, base: Tensor, scale: float) -> Tensor:
        """Return base + scale·D, [out, in], computed in the dtype of D and not rounded after."""

    def add_to(self, base: Tensor, scale: float, out: Tensor) -> None:
        """Write base + scale·D to `out`, rounded once to its dtype.

        Args:
            base: [out, in], of any dtype.
            scale: a number.
            out: [out, in]; may be `base` itself.
        """
        for rows in slices(*self.shape, DELTA_BLOCK):
            out[rows] = self.rows(rows).added_to(base[rows], scale)


class DenseDelta(Delta):
    """A delta stored entry by entry, as one matrix or as two whose difference it is.

    Args:
        tuned: [out, in], of any floating dtype.
        base: [out, in], of the same dtype and device; if None, `tuned` is the delta.
        device: where the difference is taken, a block at a time; by default where the two are.
        scale: a factor of the difference.
        dtype: the working dtype; by default that of `tuned`.
    """

    def __init__(
        self,
        tuned: Tensor,
        base: Tensor | None = None,
        device: torch.device | None = None,
        scale: float = 1.0,
        dtype: torch.dtype | None = None,
    ):
        self.tuned = tuned
        self.base = base
        self._device = device or tuned.device
        self._scale = scale
        self._dtype = dtype or working_dtype(tuned.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        out_features, in_features = self.tuned.shape
        return out_features, in_features

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def T(self) -> DenseDelta:
        return self._both(lambda matrix: matrix.T)

    @cached_property
    def column_norms(self) -> Tensor:
        norms = [torch.zeros(0, dtype=torch.float64)]
        for _, block in self.dense_columns():
            # `vector_norm` takes ten times as long along columns.
            own = in_float64(block.square().sum(0).sqrt_()).cpu()
            # The squares of some may be out of float32's range.
            if not bool(((own > _SMALL_NORM) & own.isfinite()).all()):
                own = in_float64(block).square().sum(0).sqrt_().cpu()
            norms.append(own)
        return torch.cat(norms)

    def is_zero(self) -> bool:
        if not self._scale:
            return True
        if self.base is None:
            return not bool(self.tuned.any())
        return torch.equal(self.tuned, self.base)

    def project(self, basis: Tensor) -> Tensor:
        result = basis.new_empty(basis.shape[1], self.shape[1])
        for columns, block in self.dense_columns():
            torch.mm(basis.T, block, out=result[:, columns])
        return result

    def projected_at(self, basis: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        values = basis.new_empty(len(rows), dtype=torch.float64)
        if _CROWDED * len(rows) > self.shape[1]:
            self._project_in_order(basis, rows, columns, out=values)
            return values
        for part in slices(len(rows), self.shape[0], _AT_A_TIME):
            # On the CPU, which may be where the matrices are, indices may not be elsewhere.
            own_columns = columns[part].to(self.tuned.device)
            own = self._exact_columns(own_columns)
            values[part] = own.mul_(basis[:, rows[part]]).sum(0)
        return values

    def projected_lengths(self, basis: Tensor, rows: Tensor) -> Tensor:
        left = basis[:, rows].double().T
        squares = left.new_zeros(len(rows))
        for _, block in self.in_float64().dense_columns():
            squares += (left @ block).square_().sum(1)
        return squares.sqrt_()

    def _project_in_order(self, basis: Tensor, rows: Tensor, columns: Tensor, out: Tensor) -> None:
        """Write single entries of basisᵀ·D to `out`, those of neighbouring columns together."""
        out_features, in_features = self.shape
        left = basis.T.contiguous()
        in_order, order = columns.sort()
        for block in slices(in_features, out_features, _AT_A_TIME):
            first, last = torch.searchsorted(
                in_order, in_order.new_tensor([block.start, block.stop])
            )
            if first == last:
                continue
            right = self._exact_columns(block).T.contiguous()
            for part in slices(int(last - first), out_features, _AT_A_TIME):
                own = order[first:last][part]
                products = right[columns[own] - block.start].mul_(left[rows[own]])
                out[own] = products.sum(1)

    def _exact_columns(self, columns: slice | Tensor) -> Tensor:
        """Return some columns of the difference in float64, where no digit of it is lost."""
        exact = self.tuned[:, columns].to(self.device).double()
        if self.base is not None:
            exact = exact - self.base[:, columns].to(self.device)
        return exact if self._scale == 1 else exact * self._scale

    def dense_columns(self) -> Iterator[tuple[slice, Tensor]]:
        # One buffer for all blocks: to map fresh memory takes several times as long as to fill it.
        out_features, in_features = self.shape
        buffer = torch.empty(0)
        for columns in slices(in_features, out_features, DELTA_BLOCK):
            width = columns.stop - columns.start
            if not buffer.numel():
                buffer = torch.empty(width * out_features, dtype=self.dtype, device=self.device)
            block = buffer[: width * out_features]
            # In the order in which the matrix itself lies.
            rows_first = self.tuned.stride(0) >= self.tuned.stride(1)
            block = block.view(out_features, width) if rows_first else block.view(width, -1).T
            yield columns, self.columns(columns).written_to(block)

    def written_to(self, buffer: Tensor) -> Tensor:
        """Write D to `buffer`, [out, in] in the working dtype, and return that."""
        # Moved first: what is copied across devices to another dtype is converted where it comes
        # from.
        tuned = self.tuned.to(self.device)
        base = None if self.base is None else self.base.to(self.device)
        if base is not None and tuned.dtype == buffer.dtype:
            torch.sub(tuned, base, out=buffer)
        else:
            buffer.copy_(tuned)
            if base is not None:
                buffer.sub_(base)
        return buffer if self._scale == 1 else buffer.mul_(self._scale)

    def scaled(self, factor: float) -> DenseDelta:
        return DenseDelta(self.tuned, self.base, self.device, factor * self._scale, self.dtype)

    def in_float64(self) -> DenseDelta:
        device = self.device if has_float64(self.device) else torch.device("cpu")
        return DenseDelta(self.tuned, self.base, device, self._scale, torch.float64)

    def to_dense(self) -> Tensor:
        if self.base is None and self._scale == 1:
            return self.tuned.to(self.device).to(self.dtype)
        return self.written_to(torch.empty_like(self.tuned, dtype=self.dtype, device=self.device))

    def rows(self, rows: slice) -> DenseDelta:
        return self._both(lambda matrix: matrix[rows])

    def columns(self, columns: slice | Tensor) -> DenseDelta:
        return self._both(lambda matrix: matrix[:, columns])

    def matrices(self, shape: tuple[int, int, int]) -> list[Delta]:
        """Return D as matrices of which it holds one below the other.

        Args:
            shape: (matrices, out, in), of as many entries as D.
        """
        stack = self._both(lambda matrix: matrix.reshape(shape))
        return [stack._both(itemgetter(i)) for i in range(shape[0])]

    def added_to(self, base: Tensor, scale: float) -> Tensor:
        base = base.to(self.device).to(self.dtype)
        return torch.add(base, self.to_dense(), alpha=scale)

    def _both(self, part: Callable[[Tensor], Tensor]) -> DenseDelta:
        base = None if self.base is None else part(self.base)
        return DenseDelta(part(self.tuned), base, self.device, self._scale, self.dtype)


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

    @property
    def column_norms(self) -> Tensor:
        return self._norms[0]

    @property
    def rounding_norms(self) -> Tensor:
        # The columns of B·A may be far shorter than what adds up to them.
        return self._norms[1]

    @cached_property
    def _norms(self) -> tuple[Tensor, Tensor]:
        """The norms of D's columns, and those of what adds up to them."""
        B, A = in_float64(self.B), in_float64(self.A)
        # With B = Q·R, the columns of R·A are as long as those of B·A.
        R = torch.linalg.qr(B, mode="r").R
        norms = torch.linalg.vector_norm(R @ A, dim=0)
        added_up = (torch.linalg.vector_norm(B, dim=0).square() @ A.square()).sqrt_()
        return norms.cpu(), added_up.cpu()

    def is_zero(self) -> bool:
        return not (bool(self.A.any()) and bool(self.B.any()))

    def project(self, basis: Tensor) -> Tensor:
        return (basis.T @ self.B) @ self.A

    def projected_at(self, basis: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        # Many places share few rows.
        own, which = torch.unique(rows, return_inverse=True)
        B = self.B.double()
        left = B.new_empty(len(own), B.shape[1])
        for part in slices(len(own), len(basis), _AT_A_TIME):
            torch.mm(basis[:, own[part]].double().T, B, out=left[part])
        return (left[which] * self.A[:, columns].double().T).sum(1)

    def without_cancellation(self) -> FactoredDelta:
        """Return D in factors whose float32 products keep their digits.

        The columns of B may cancel, as those of PiSSA's adapters do: their factors hold a trained
        product minus the initial one. With B = Q·R in float64, D = Q·(R·A), and the columns of Q
        cannot cancel. Each factor is rounded once.
        """
        if not (self.rounding_norms > _CANCELLING * self.column_norms).any():
            return self
        Q, R = torch.linalg.qr(in_float64(self.B))
        A = R @ in_float64(self.A)
        return FactoredDelta(Q.to(self.B), A.to(self.A))

    def projected_lengths(self, basis: Tensor, rows: Tensor) -> Tensor:
        # With Aᵀ = P·L, the rows of (basisᵀ·B)·Lᵀ are as long as those of basisᵀ·B·A.
        L = torch.linalg.qr(self.A.double().T, mode="r").R
        left = basis[:, rows].double().T @ self.B.double()
        lengths: Tensor = torch.linalg.vector_norm(left @ L.T, dim=1)
        return lengths

    def scaled(self, factor: float) -> FactoredDelta:
        return FactoredDelta(self.B, factor * self.A)

    def in_float64(self) -> FactoredDelta:
        return FactoredDelta(in_float64(self.B), in_float64(self.A))

    def to_dense(self) -> Tensor:
        return self.B @ self.A

    def rows(self, rows: slice) -> FactoredDelta:
        return FactoredDelta(self.B[rows], self.A)

    def columns(self, columns: slice | Tensor) -> FactoredDelta:
        return FactoredDelta(self.B, self.A[:, columns])

    def added_to(self, base: Tensor, scale: float) -> Tensor:
        return torch.addmm(base.to(self.device).to(self.dtype), self.B, self.A, alpha=scale)


def linear_combination(deltas: Iterable[Delta], weights: Sequence[float]) -> Delta:
    """Return Σ w_t·D_t, stored in whatever takes less: factors, or entries.

    In factors it is [B_1 … B_T]·[w_1·A_1; …; w_T·A_T], of k_1 + … + k_T columns. If a delta is
    dense, so is the result.

    Args:
        deltas: T deltas of one shape [out, in], at least one. If they are made one by one, they
            are held no longer than they are needed.
        weights: T weights.
    """
    dense: Tensor | None = None
    thin: list[FactoredDelta] = []
    for delta, weight in zip(deltas, weights, strict=True):
        if isinstance(delta, FactoredDelta):
            thin.append(delta.scaled(weight))
        out_features, in_features = delta.shape
        rank = sum(each.B.shape[1] for each in thin)
        short = rank * (out_features + in_features) <= out_features * in_features
        if dense is None and short and isinstance(delta, FactoredDelta):
            continue
        if dense is None:
            dense = torch.zeros(delta.shape, dtype=delta.dtype, device=delta.device)
        for each in thin:
            dense.addmm_(each.B, each.A)
        thin = []
        if not isinstance(delta, FactoredDelta):
            delta.add_to(dense, weight, out=dense)
    if dense is not None:
        return DenseDelta(dense)
    return FactoredDelta(
        torch.cat([delta.B for delta in thin], dim=1), torch.cat([delta.A for delta in thin])
    )
