"""The tensor that carries a LoRA update through mergekit's graph.

mergekit loads tensors, moves them to devices and dtypes, and hands them to a merge method. An
`AdaptedTensor` goes that way as a weight and its update, apart. Our methods take the update; any
operator that does not know the type gets the ordinary tensor, made at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mergekit_spectral.spectral.precision import exact_matmul, working_dtype

Update = tuple[Tensor, ...]
"""Factors B [out, r] and A [r, rest]; or one vector; or nothing, for a weight left alone."""


class AdaptedTensor(torch.Tensor):
    """A weight W + scale·B·A that has not been added up, in the shape, dtype and device of W.

    Args:
        read_base: returns W; called at most once, when somebody needs the sum.
        base_id: whose weight W is; None if it is not the weight of any model in the recipe.
        update: what is added to W, before `scale`, as stored.
        scale: what the update is multiplied by.
        shape: of W.
        dtype: to which the sum is rounded. The parts are not.
        device: where the sum is wanted. The update is there already.
    """

    read_base: Callable[[], Tensor]
    base_id: Hashable
    update: Update
    scale: float

    @staticmethod
    def __new__(
        cls,
        read_base: Callable[[], Tensor],
        base_id: Hashable,
        update: Update,
        scale: float,
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
    ) -> AdaptedTensor:
        self: AdaptedTensor = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=dtype, device=device
        )
        self.read_base = read_base
        self.base_id = base_id
        self.update = update
        self.scale = scale
        self._dense = None
        return self

    def __init__(self, *_: Any) -> None:
        self._dense: Tensor | None

    def __repr__(self) -> str:  # type: ignore[override]
        return f"AdaptedTensor(shape={tuple(self.shape)}, dtype={self.dtype}, {self.base_id})"

    @exact_matmul()
    def sum_in(self, dtype: torch.dtype) -> Tensor:
        """Return W + scale·B·A, computed in `dtype` and not rounded."""
        base = self.read_base().to(device=self.device, dtype=dtype)
        update = [part.to(dtype) for part in self.update]
        if not update:
            return base
        if len(update) == 1:
            return base + self.scale * update[0]
        return torch.addmm(base.flatten(1), *update, alpha=self.scale).view(self.shape)

    def to_dense_tensor(self) -> Tensor:
        """Return the ordinary tensor, rounded once; the second call costs nothing."""
        if self._dense is None:
            self._dense = self.sum_in(working_dtype(self.dtype)).to(self.dtype)
        return self._dense

    def moved(self, dtype: torch.dtype, device: torch.device) -> AdaptedTensor:
        """Return this tensor for another dtype and device. Only the update's device changes."""
        update = tuple(part.to(device) for part in self.update)
        return AdaptedTensor(
            self.read_base, self.base_id, update, self.scale, self.shape, dtype, device
        )

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as PyTorch calls it, not as it declares it
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and not kwargs.keys() - _MOVES:
            source: AdaptedTensor = args[0]
            return source.moved(
                kwargs.get("dtype") or source.dtype,
                torch.device(kwargs.get("device") or source.device),
            )
        if func is torch.ops.aten.detach.default:
            return args[0].moved(args[0].dtype, args[0].device)

        def ordinary(value: Any) -> Any:
            return value.to_dense_tensor() if isinstance(value, AdaptedTensor) else value

        return func(*tree_map(ordinary, args), **tree_map(ordinary, kwargs))


_MOVES = {"dtype", "device", "non_blocking"}
