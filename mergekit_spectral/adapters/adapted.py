"""The tensor that carries a LoRA update through mergekit's graph.

mergekit loads tensors, moves them to devices and dtypes, and hands them to a merge method. An
`AdaptedTensor` goes that way as a weight and its update, apart. Our methods take the update; any
operator that does not know the type gets the ordinary tensor, made at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mergekit_spectral.adapters.deferred import DeferredTensor, with_index
from mergekit_spectral.spectral import exact_matmul, working_dtype

Update = tuple[Tensor, ...]
"""Factors B [out, r] and A [r, rest], or a pair for each of several matrices, [matrices, out, r]
and [matrices, r, in]; or one vector; or nothing, for a weight left alone."""


class AdaptedTensor(DeferredTensor):
    """A weight W + scale·B·A that has not been added up, in the shape, dtype and device of W.

    Args:
        read_base: returns W; called when, and only when, somebody needs it.
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
            cls, shape, dtype=dtype, device=with_index(device)
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

    def base_in(self, dtype: torch.dtype) -> Tensor:
        """Return W in `dtype`."""
        return self.read_base().to(device=self.device, dtype=dtype)

    @exact_matmul()
    def update_added_to(self, tensor: Tensor) -> Tensor:
        """Return `tensor` + scale·B·A, computed in the dtype of `tensor`."""
        update = [part.to(tensor.dtype) for part in self.update]
        if not update:
            return tensor
        if len(update) == 1:
            return tensor + self.scale * update[0]
        if update[0].ndim == 3:
            return torch.baddbmm(tensor, *update, alpha=self.scale)
        return torch.addmm(tensor.flatten(1), *update, alpha=self.scale).view(self.shape)

    def to_dense(self) -> Tensor:  # type: ignore[override]  # PyTorch's has options
        """Return the ordinary tensor, rounded once; the second call costs nothing."""
        if self._dense is None:
            base = self.base_in(working_dtype(self.dtype))
            self._dense = self.update_added_to(base).to(self.dtype)
        return self._dense

    def moved(self, dtype: torch.dtype, device: torch.device) -> AdaptedTensor:
        """Return this tensor for another dtype and device.

        Of the update only the device changes. W will be rounded to every dtype that it goes
        through, as the base model's own weight is: where the two are the same, they stay the same.
        """
        read_base = self.read_base
        if dtype != self.dtype:
            read_base = partial(_read_rounded, read_base, dtype)
        update = tuple(part.to(device) for part in self.update)
        moved = AdaptedTensor(
            read_base, self.base_id, update, self.scale, self.shape, dtype, device
        )
        if (dtype, device) == (self.dtype, self.device):
            moved._dense = self._dense
        return moved


def _read_rounded(read: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
    return read().to(dtype)
