"""The weights of an adapter's base: their shapes at once, their values when they are asked for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Protocol

import safetensors
import torch
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from torch import Tensor

from mergekit_spectral.errors import MergeError

Shape = tuple[int, ...]
Header = tuple[Shape, torch.dtype]


class BaseWeights(Protocol):
    """What is known of a base model's weights.

    Attributes:
        index: mergekit's index of them.
    """

    index: ShardedTensorIndex

    def header(self, name: str) -> Header:
        """Return a weight's shape and dtype."""

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a weight."""


class StoredWeights:
    """The weights in a checkpoint's files.

    No weight is read for its shape, except from pickles that hold more than tensors.

    Args:
        loader: mergekit's loader for the checkpoint.

    Raises:
        MergeError: if the index names no file for a tensor.
    """

    def __init__(self, loader: LazyTensorLoader):
        _check_index(loader.index)
        self.index = loader.index
        self._loader = loader
        self._headers: dict[str, Header] = {}

    def header(self, name: str) -> Header:
        """Return a weight's shape and dtype."""
        if name not in self._headers:
            path = Path(self.index.base_path) / self.index.tensor_paths[name]
            if path.suffix == ".safetensors":
                self._headers |= _safetensors_headers(path)
            else:
                self._headers |= _pickled_headers(path)
        if name not in self._headers:
            tensor = self.read(name, torch.device("cpu"))
            self._headers[name] = tuple(tensor.shape), tensor.dtype
        return self._headers[name]

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a weight on `device`."""
        tensor = self._loader.get_tensor(name, device=str(device))
        assert tensor is not None  # the loader raises where there is none
        return tensor


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


def _check_index(index: ShardedTensorIndex) -> None:
    files: dict[str, object] = dict(index.tensor_paths)
    for name, file in files.items():
        if not isinstance(file, str):
            raise MergeError(
                f"The index of the model in {index.base_path} maps tensor {name} to {file!r}, "
                "which is no name of a file; copy or download the model again."
            )


def _safetensors_headers(path: Path) -> dict[str, Header]:
    with safetensors.safe_open(path, framework="pt") as file:
        entries = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {
            key: (tuple(entry.get_shape()), DTYPES[entry.get_dtype()])
            for key, entry in entries.items()
            if entry.get_dtype() in DTYPES
        }


def _pickled_headers(path: Path) -> dict[str, Header]:
    try:
        tensors = torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError:
        return {}
    for key, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.layout != torch.strided:
            raise MergeError(
                f"Tensor {key} in {path} is {str(tensor.layout).removeprefix('torch.')}; save it "
                "as a dense tensor."
            )
    return {
        key: (tuple(tensor.shape), tensor.dtype)
        for key, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    }
