"""The interface to the weights of an adapter's base: shapes and dtypes, and values on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mergekit.io.lazy_tensor_loader import ShardedTensorIndex

Shape = tuple[int, ...]
Header = tuple[Shape, torch.dtype]

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Dtypes that PyTorch can compute with, by their names in safetensors files."""

CODES = (torch.int8, torch.uint8, torch.int32)
"""Dtypes of quantized weights. Position ids, masks and counters have other integer dtypes."""


class BaseWeights(Protocol):
    """The weights of a base model.

    Attributes:
        index: mergekit's index of the weights.
    """

    index: ShardedTensorIndex

    def header(self, name: str) -> Header:
        """Return a weight's shape and dtype."""

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a weight on `device`."""
