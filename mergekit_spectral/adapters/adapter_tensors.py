"""Read the tensors in an adapter's file: names and shapes when it is opened, values on demand."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from mergekit_spectral.adapters.stored_tensors import DTYPES, Shape
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.spectral import dtype_name


class AdapterTensors:
    """An open ``adapter_model.safetensors`` or ``adapter_model.bin``.

    Args:
        path: the file. A ``.bin`` is unpickled with ``weights_only`` and memory-mapped. PyTorch
            before 1.6 wrote a format that cannot be mapped; such a file is read into memory.

    Attributes:
        shapes: shapes of the tensors, by name.
        unsupported: the dtype (such as int8) or the layout of each tensor that cannot be used as
            a factor, by name.

    Raises:
        MergeError: if the file is truncated, does not have the format that its suffix says,
            contains objects other than tensors, or contains no tensors.
    """

    shapes: dict[str, Shape]
    unsupported: dict[str, str]

    def __init__(self, path: Path):
        self._path = path
        self._pickled: dict[str, Tensor] | None = None
        try:
            if path.suffix == ".safetensors":
                self.shapes, self.unsupported = _read_safetensors_headers(path)
            else:
                self._pickled = _unpickle(path)
                self.shapes = {key: tuple(tensor.shape) for key, tensor in self._pickled.items()}
                kinds = {key: _describe_kind(tensor) for key, tensor in self._pickled.items()}
                self.unsupported = {
                    key: kind for key, kind in kinds.items() if kind not in FACTOR_DTYPES
                }
        except (pickle.UnpicklingError, AttributeError, _NotTensorsError) as error:
            raise MergeError(
                f"Adapter file {path} is damaged, or contains objects other than tensors, which "
                "are not loaded because they could run code; copy or download it again, or save it "
                "as adapter_model.safetensors."
            ) from error
        except Exception as error:  # a damaged pickle can raise any exception
            raise MergeError(
                f"Adapter file {path} cannot be read ({first_line(error)}); it is truncated or "
                "damaged, so copy or download it again."
            ) from error
        if not self.shapes:
            raise MergeError(
                f"Adapter file {path} contains no tensors; save the adapter again with peft's "
                "save_pretrained, or copy or download it again."
            )

    def read(self, key: str, device: torch.device | str = "cpu") -> Tensor:
        """Return one tensor on `device`, with the shape and dtype that it has in the file."""
        if self._pickled is not None:
            return self._pickled[key].to(device)
        with safetensors.safe_open(self._path, framework="pt", device=str(device)) as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor


FACTOR_DTYPES = ("float64", "float32", "float16", "bfloat16")
"""Names of the dtypes that factors may have."""


class _NotTensorsError(Exception):
    """A pickle contains something other than a mapping of names to tensors."""


def _unpickle(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        legacy = file.read(1) == pickle.PROTO
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=not legacy)
    if not isinstance(content, dict):
        raise _NotTensorsError
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise _NotTensorsError
    return {key: tensor.detach() for key, tensor in content.items()}


def _describe_kind(tensor: Tensor) -> str:
    """Return a tensor's dtype, or why its entries cannot be read."""
    if tensor.is_meta:
        return "on the meta device, without values"
    if tensor.layout != torch.strided:
        return "sparse"
    return dtype_name(tensor.dtype)


def _read_safetensors_headers(path: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    """Return the shapes of the tensors, and the dtypes of those that cannot be factors."""
    shapes: dict[str, Shape] = {}
    unsupported: dict[str, str] = {}
    with safetensors.safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            entry = file.get_slice(key)
            shapes[key] = tuple(entry.get_shape())
            dtype = entry.get_dtype()
            kind = str(DTYPES.get(dtype, dtype)).removeprefix("torch.")
            if kind not in FACTOR_DTYPES:
                unsupported[key] = kind
    return shapes, unsupported
