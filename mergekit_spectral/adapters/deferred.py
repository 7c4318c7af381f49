"""Tensors whose entries are computed, or moved, when somebody needs them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


class DeferredTensor(torch.Tensor):
    """Represents a tensor; moved to another dtype or device, it stays deferred.

    Any other operator gets the ordinary tensor, which is computed at that moment.
    """

    @abstractmethod
    def to_dense(self) -> Tensor:  # type: ignore[override]  # PyTorch's has options
        """Return the ordinary tensor, of this shape, dtype and device."""

    @abstractmethod
    def moved(self, dtype: torch.dtype, device: torch.device) -> DeferredTensor:
        """Return the same in another dtype and on another device, still deferred."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as PyTorch calls it, not as it declares it
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and not kwargs.keys() - _MOVES:
            source: DeferredTensor = args[0]
            return source.moved(
                kwargs.get("dtype") or source.dtype,
                torch.device(kwargs.get("device") or source.device),
            )
        if func is torch.ops.aten.detach.default:
            return args[0].moved(args[0].dtype, args[0].device)
        return func(*tree_map(_to_dense, args), **tree_map(_to_dense, kwargs))


class HostTensor(DeferredTensor):
    """A tensor that stays in main memory, wherever it is moved.

    A GPU may have too little memory for all that is to be merged, but enough for blocks of it. It
    is for reading only.

    Args:
        stored: the tensor, on the CPU.
        device: where it is wanted.
    """

    stored: Tensor

    @staticmethod
    def __new__(cls, stored: Tensor, device: torch.device) -> HostTensor:
        self: HostTensor = torch.Tensor._make_wrapper_subclass(
            cls, stored.shape, dtype=stored.dtype, device=with_index(device)
        )
        self.stored = stored
        return self

    def __init__(self, *_: Any) -> None:
        pass

    def __repr__(self) -> str:  # type: ignore[override]
        return f"HostTensor(shape={tuple(self.shape)}, dtype={self.dtype}, {self.device})"

    def to_dense(self) -> Tensor:  # type: ignore[override]  # PyTorch's has options
        return self.stored.to(self.device)

    def moved(self, dtype: torch.dtype, device: torch.device) -> HostTensor:
        return HostTensor(self.stored.to(dtype), device)


def with_index(device: torch.device) -> torch.device:
    """Return the device that a tensor made on `device` says it is on."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _to_dense(value: Any) -> Any:
    return value.to_dense() if isinstance(value, DeferredTensor) else value


# With a device, PyTorch also names the layout, which is as it was.
_MOVES = {"dtype", "device", "non_blocking", "layout"}
