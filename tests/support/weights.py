"""A base's weights, as far as an adapter is fitted to them."""

from __future__ import annotations

import torch
from mergekit.io.lazy_tensor_loader import ShardedTensorIndex
from torch import Tensor

from mergekit_spectral.adapters.base_weights import Header


class Weights:
    """Weights of which only the shapes are known."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes
        self.index = ShardedTensorIndex("", True, dict.fromkeys(shapes, ""), [])

    def header(self, name: str) -> Header:
        return self.shapes[name], torch.float32

    def read(self, name: str, device: torch.device) -> Tensor:
        raise AssertionError(f"{name} was read")
