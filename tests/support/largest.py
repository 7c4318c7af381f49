"""Record the shapes of the tensors that a computation creates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """A context manager that records every tensor, including views, that an operator returns.

    Attributes:
        numel: number of values of the largest tensor.
        shapes: shapes of all tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    @property
    def numel(self) -> int:
        return max((torch.Size(shape).numel() for shape in self.shapes), default=0)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves(result)
        self.shapes += [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return result
