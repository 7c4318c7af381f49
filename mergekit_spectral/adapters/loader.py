"""A loader for ``base+adapter`` references, in the place of mergekit's merged copies."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import safetensors
import torch
from mergekit.common import ModelReference
from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor, Update
from mergekit_spectral.adapters.lora import LoraAdapter, Product
from mergekit_spectral.adapters.tensors import Shape
from mergekit_spectral.errors import MergeError

Header = tuple[Shape, torch.dtype]


class AdaptedLoader:
    """Reads the weights of an adapted model, its base's and its updates apart.

    Args:
        base: the reference of the base alone.
        base_loader: mergekit's loader for it.
        adapter: the adapter.

    Attributes:
        index: which tensors there are: the base's, and those that the adapter adds.

    Raises:
        MergeError: if the adapter changes weights that the base has not, or of other shapes.
    """

    def __init__(self, base: ModelReference, base_loader: LazyTensorLoader, adapter: LoraAdapter):
        self.base = base
        self.base_loader = base_loader
        self.adapter = adapter
        self._headers = BaseHeaders(base_loader)
        self._check_fit()
        self.index = copy.copy(base_loader.index)
        self.index.tensor_paths = base_loader.index.tensor_paths | adapter.replacements

    def get_tensor(
        self,
        key: str,
        device: str = "cpu",
        aliases: list[str] | None = None,
        raise_on_missing: bool = True,
    ) -> Tensor | None:
        """Return an `AdaptedTensor`, with the update read and the base's weight not.

        Raises:
            KeyError: if there is no such tensor and `raise_on_missing`.
        """
        name = next((k for k in [key, *(aliases or [])] if k in self.index.tensor_paths), None)
        if name is None:
            if raise_on_missing:
                raise KeyError(key)
            return None
        where = torch.device(device)
        if name in self.adapter.replacements:
            return self._replacement(name, where)
        shape, dtype = self._headers[name]
        update, scale = self._update(name, where)
        return AdaptedTensor(
            lambda: self.base_loader.get_tensor(name, device=device),
            self.base,
            update,
            scale,
            torch.Size(shape),
            dtype,
            where,
        )

    def flush(self) -> None:
        """Do nothing: files are open only while a tensor is read."""

    def _replacement(self, name: str, device: torch.device) -> Tensor:
        replacement = self.adapter.replacement(name, device)
        dtype = replacement.dtype
        if name in self.base_loader.index.tensor_paths:
            _, dtype = self._headers[name]
        update, scale = self._update(name, device)
        return AdaptedTensor(
            lambda: replacement, None, update, scale, replacement.shape, dtype, device
        )

    def _update(self, name: str, device: torch.device) -> tuple[Update, float]:
        update = self.adapter.updates.get(name)
        if update is None:
            return (), 1.0
        if isinstance(update, Product):
            return self.adapter.factors(name, device), update.scale
        return (self.adapter.vector(name, device),), update.scale

    def _check_fit(self) -> None:
        adapter, known = self.adapter, self.base_loader.index.tensor_paths
        unknown = [name for name in adapter.updates if name not in known]
        if unknown:
            raise MergeError(
                f"Adapter {adapter.name} does not fit {self.base}: {len(unknown)} of the "
                f"{len(adapter.updates)} weights that it changes are not there, the first is "
                f"{min(unknown)}; was it trained on another architecture or number of layers?"
            )
        for name in [*adapter.updates, *(r for r in adapter.replacements if r in known)]:
            shape, expected = adapter.shape(name), self._headers[name][0]
            # An adapter tells convolutions as [out, rest].
            if shape not in (expected, (expected[0], math.prod(expected[1:]))):
                raise MergeError(
                    f"Adapter {adapter.name} does not fit {self.base}: it changes {name} as "
                    f"{list(shape)}, but there it is {list(expected)}; was it trained on a model "
                    "of another size?"
                )


class BaseHeaders:
    """Shapes and dtypes of a base's weights, from the files' headers where they have them."""

    def __init__(self, loader: LazyTensorLoader):
        self._loader = loader
        self._read: dict[str, Header] = {}

    def __getitem__(self, name: str) -> Header:
        if name not in self._read:
            index = self._loader.index
            path = Path(index.base_path) / index.tensor_paths[name]
            if path.suffix == ".safetensors":
                self._read |= _safetensors_headers(path)
        if name not in self._read:
            tensor = self._loader.get_tensor(name)
            assert tensor is not None  # it raises where there is none
            self._read[name] = tuple(tensor.shape), tensor.dtype
        return self._read[name]


_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def _safetensors_headers(path: Path) -> dict[str, Header]:
    with safetensors.safe_open(path, framework="pt") as file:
        entries = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        return {
            key: (tuple(entry.get_shape()), _FLOATS[entry.get_dtype()])
            for key, entry in entries.items()
            if entry.get_dtype() in _FLOATS
        }
