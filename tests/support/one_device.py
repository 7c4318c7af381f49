"""Raise an error where an operator gets tensors on different devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class OneDevice(TorchDispatchMode):
    """A context manager in which operators, except moves, raise if tensors are on two devices.

    Tensors without axes are allowed on any device, as on a GPU. It is needed for tests with the
    meta device, for which PyTorch itself checks less.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device for tensor in tensors if tensor.ndim}
        if len(devices) > 1 and func not in _MOVES:
            raise RuntimeError(f"{func} of tensors on {devices}")
        return func(*args, **kwargs)
