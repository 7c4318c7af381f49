"""The tensor that carries a LoRA update through mergekit's graph.

mergekit loads tensors, moves them to devices and dtypes, and passes them to a merge method. An
`AdaptedTensor` goes through these steps as a weight and a separate update. This package's methods
read the update. Every operator of PyTorch, and so every other method, gets the ordinary tensor,
which is computed at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mergekit_spectral.adapters.deferred import DeferredTensor, add_device_index
from mergekit_spectral.spectral import exact_matmul, working_dtype

Update = tuple[Tensor, ...]
"""An update of a weight, as a tuple of its parts:

- two factors: B [out, r] and A [r, rest], or for a stack of matrices B [matrices, out, r] and
  A [matrices, r, in];
- one vector, for a bias;
- nothing, if the adapter does not change the weight.
"""


class AdaptedTensor(DeferredTensor):
    """The sum W + scale·B·A, computed on demand. It has the shape, dtype and device of W.

    Args:
        read_base: returns W; called only when W is needed.
        base_id: the model that W is a weight of; None if W is of no model in the recipe.
        update: the update before it is multiplied by `scale`, in its stored dtype.
        scale: the factor that the update is multiplied by.
        shape: the shape of W.
        dtype: the dtype to which the sum is rounded. W and the update are not rounded to it first.
        device: the device of the sum. The update must already be on this device.
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
            cls, shape, dtype=dtype, device=add_device_index(device)
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
        """Return the ordinary tensor, rounded once. The result is cached."""
        if self._dense is None:
            base = self.base_in(working_dtype(self.dtype))
            self._dense = self.update_added_to(base).to(self.dtype)
        return self._dense

    def move_to(self, dtype: torch.dtype, device: torch.device) -> AdaptedTensor:
        """Return this tensor for another dtype and device.

        The update moves to the device, but keeps its dtype. W will be rounded to every dtype that
        the tensor was converted to, in that order. mergekit rounds the base model's own weight in
        the same way, so a weight that the adapter does not change stays equal to the base's.
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
