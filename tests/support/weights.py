"""The weights of a base, as `fit_to_base` needs them."""

from __future__ import annotations

import torch
from mergekit.io.lazy_tensor_loader import ShardedTensorIndex
from torch import Tensor

from mergekit_spectral.adapters.stored_tensors import Header


class Weights:
    """Weights in float32 that have shapes, but no values."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes
        self.index = ShardedTensorIndex("", True, dict.fromkeys(shapes, ""), [])

    def header(self, name: str) -> Header:
        return self.shapes[name], torch.float32

    def read(self, name: str, device: torch.device) -> Tensor:
        raise AssertionError(f"{name} was read")
