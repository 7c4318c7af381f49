"""The tensors in an adapter's file: names and shapes at once, values when they are asked for."""

from __future__ import annotations

import pickle
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from mergekit_spectral.errors import MergeError

Shape = tuple[int, ...]


class AdapterTensors:
    """An open ``adapter_model.safetensors`` or ``adapter_model.bin``.

    Args:
        path: the file. A ``.bin`` is unpickled with ``weights_only`` and memory-mapped.

    Raises:
        MergeError: if it is truncated or not what its ending says.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            if path.suffix == ".safetensors":
                with safetensors.safe_open(path, framework="pt") as file:
                    self.shapes: dict[str, Shape] = {
                        key: tuple(file.get_slice(key).get_shape())
                        for key in file.keys()  # noqa: SIM118
                    }
                self._pickled: dict[str, Tensor] | None = None
            else:
                self._pickled = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                self.shapes = {key: tuple(tensor.shape) for key, tensor in self._pickled.items()}
        except (
            safetensors.SafetensorError,
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            OSError,
        ) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MergeError(
                f"Adapter file {path} cannot be read ({reason}); it is truncated or damaged, so "
                "copy or download it again."
            ) from error

    def read(self, key: str, device: torch.device | str = "cpu") -> Tensor:
        """Return one tensor as stored, on `device`."""
        if self._pickled is not None:
            return self._pickled[key].to(device)
        with safetensors.safe_open(self._path, framework="pt", device=str(device)) as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor
