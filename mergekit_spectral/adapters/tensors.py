"""The tensors in an adapter's file: names and shapes at once, values when they are asked for."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from mergekit_spectral.errors import MergeError, first_line

Shape = tuple[int, ...]


class AdapterTensors:
    """An open ``adapter_model.safetensors`` or ``adapter_model.bin``.

    Args:
        path: the file. A ``.bin`` is unpickled with ``weights_only`` and memory-mapped.

    Attributes:
        shapes: of the tensors, by name.

    Raises:
        MergeError: if it is truncated, not what its ending says, or holds more than tensors.
    """

    shapes: dict[str, Shape]

    def __init__(self, path: Path):
        self._path = path
        self._pickled: dict[str, Tensor] | None = None
        try:
            if path.suffix == ".safetensors":
                self.shapes = _safetensors_shapes(path)
            else:
                self._pickled = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                self.shapes = {key: tuple(tensor.shape) for key, tensor in self._pickled.items()}
        except (pickle.UnpicklingError, AttributeError) as error:
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

    def read(self, key: str, device: torch.device | str = "cpu") -> Tensor:
        """Return one tensor as stored, on `device`."""
        if self._pickled is not None:
            return self._pickled[key].to(device)
        with safetensors.safe_open(self._path, framework="pt", device=str(device)) as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor


def _safetensors_shapes(path: Path) -> dict[str, Shape]:
    with safetensors.safe_open(path, framework="pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
