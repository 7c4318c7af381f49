"""Tensors whose entries are computed or moved to a device only when an operator needs them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


class DeferredTensor(torch.Tensor):
    """A tensor that computes its entries on demand.

    Converting it to another dtype or device gives another deferred tensor. Every other operator
    computes the ordinary tensor first and uses that.
    """

    @abstractmethod
    def to_dense(self) -> Tensor:  # type: ignore[override]  # PyTorch's has options
        """Return the ordinary tensor, with this tensor's shape, dtype and device."""

    @abstractmethod
    def move_to(self, dtype: torch.dtype, device: torch.device) -> DeferredTensor:
        """Return this tensor with another dtype and on another device, still deferred."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # as PyTorch calls it, not as it declares it
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and not kwargs.keys() - _MOVES:
            source: DeferredTensor = args[0]
            return source.move_to(
                kwargs.get("dtype") or source.dtype,
                torch.device(kwargs.get("device") or source.device),
            )
        if func is torch.ops.aten.detach.default:
            return args[0].move_to(args[0].dtype, args[0].device)
        return func(*tree_map(_to_dense, args), **tree_map(_to_dense, kwargs))


class HostTensor(DeferredTensor):
    """A tensor that stays in main memory when it is moved to another device.

    A GPU may have too little memory for all inputs of a merge, but enough for blocks of them. The
    code that merges copies one block at a time. The tensor must not be written to.

    Args:
        stored: the tensor, on the CPU.
        device: the device that the tensor reports, and to which `to_dense` copies it.
    """

    stored: Tensor

    @staticmethod
    def __new__(cls, stored: Tensor, device: torch.device) -> HostTensor:
        self: HostTensor = torch.Tensor._make_wrapper_subclass(
            cls, stored.shape, dtype=stored.dtype, device=add_device_index(device)
        )
        self.stored = stored
        return self

    def __init__(self, *_: Any) -> None:
        pass

    def __repr__(self) -> str:  # type: ignore[override]
        return f"HostTensor(shape={tuple(self.shape)}, dtype={self.dtype}, {self.device})"

    def to_dense(self) -> Tensor:  # type: ignore[override]  # PyTorch's has options
        return self.stored.to(self.device)

    def move_to(self, dtype: torch.dtype, device: torch.device) -> HostTensor:
        return HostTensor(self.stored.to(dtype), device)


def add_device_index(device: torch.device) -> torch.device:
    """Return `device` as a tensor reports it: "cuda" becomes the current device, as "cuda:0"."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _to_dense(value: Any) -> Any:
    return value.to_dense() if isinstance(value, DeferredTensor) else value


# When a device is given, PyTorch also passes the layout, which does not change.
_MOVES = {"dtype", "device", "non_blocking", "layout"}
