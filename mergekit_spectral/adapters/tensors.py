"""The tensors in an adapter's file: names and shapes at once, values when they are asked for."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from mergekit_spectral.adapters.base_weights import DTYPES, Shape
from mergekit_spectral.errors import MergeError, first_line


class AdapterTensors:
    """An open ``adapter_model.safetensors`` or ``adapter_model.bin``.

    Args:
        path: the file. A ``.bin`` is unpickled with ``weights_only`` and memory-mapped; in the
            format of PyTorch before 1.6, which cannot be mapped, it is read into memory.

    Attributes:
        shapes: of the tensors, by name.
        unusual: why a tensor's entries cannot be computed with, by name: its dtype, such as int8,
            or its layout.

    Raises:
        MergeError: if it is truncated, not what its ending says, holds more than tensors or none.
    """

    shapes: dict[str, Shape]
    unusual: dict[str, str]

    def __init__(self, path: Path):
        self._path = path
        self._pickled: dict[str, Tensor] | None = None
        try:
            if path.suffix == ".safetensors":
                self.shapes, self.unusual = _safetensors_headers(path)
            else:
                self._pickled = _unpickled(path)
                self.shapes = {key: tuple(tensor.shape) for key, tensor in self._pickled.items()}
                kinds = {key: _kind(tensor) for key, tensor in self._pickled.items()}
                self.unusual = {key: kind for key, kind in kinds.items() if kind not in FLOATS}
        except (pickle.UnpicklingError, AttributeError, _NotTensorsError) as error:
            raise MergeError(
                f"Adapter file {path} is damaged or holds more than tensors by name, and to read "
                "more could run foreign code; copy or download it again, or save it as "
                "adapter_model.safetensors."
            ) from error
        except Exception as error:  # a damaged pickle may raise any
            raise MergeError(
                f"Adapter file {path} cannot be read ({first_line(error)}); it is truncated or "
                "damaged, so copy or download it again."
            ) from error
        if not self.shapes:
            raise MergeError(
                f"Adapter file {path} holds no tensors; save the adapter again with peft's "
                "save_pretrained, or copy or download it again."
            )

    def read(self, key: str, device: torch.device | str = "cpu") -> Tensor:
        """Return one tensor as stored, on `device`."""
        if self._pickled is not None:
            return self._pickled[key].to(device)
        with safetensors.safe_open(self._path, framework="pt", device=str(device)) as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor


FLOATS = ("float64", "float32", "float16", "bfloat16")
"""The dtypes of factors."""


class _NotTensorsError(Exception):
    """A pickle holds something other than tensors by name."""


def _unpickled(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        legacy = file.read(1) == pickle.PROTO
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=not legacy)
    if not isinstance(content, dict):
        raise _NotTensorsError
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise _NotTensorsError
    return {key: tensor.detach() for key, tensor in content.items()}


def _kind(tensor: Tensor) -> str:
    """Return a tensor's dtype, or what else keeps its entries from being read as numbers."""
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.layout != torch.strided:
        return "sparse"
    return str(tensor.dtype).removeprefix("torch.")


def _safetensors_headers(path: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    shapes: dict[str, Shape] = {}
    unusual: dict[str, str] = {}
    with safetensors.safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            entry = file.get_slice(key)
            shapes[key] = tuple(entry.get_shape())
            dtype = entry.get_dtype()
            kind = str(DTYPES.get(dtype, dtype)).removeprefix("torch.")
            if kind not in FLOATS:
                unusual[key] = kind
    return shapes, unusual
