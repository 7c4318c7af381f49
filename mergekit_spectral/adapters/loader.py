"""A loader for ``base+adapter`` references, in the place of mergekit's merged copies."""

from __future__ import annotations

import copy
import math

import torch
from mergekit.common import ModelReference
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor, Update
from mergekit_spectral.adapters.base_weights import BaseWeights
from mergekit_spectral.adapters.lora import LoraAdapter, Product
from mergekit_spectral.errors import MergeError


class AdaptedLoader:
    """Reads the weights of an adapted model, its base's and its updates apart.

    Args:
        base: the reference of the base alone.
        weights: the base's weights.
        adapter: the adapter.

    Attributes:
        index: which tensors there are: the base's, and those that the adapter adds.

    Raises:
        MergeError: if the adapter changes weights that the base has not, or of other shapes.
    """

    def __init__(self, base: ModelReference, weights: BaseWeights, adapter: LoraAdapter):
        self.base = base
        self.weights = weights
        self.adapter = adapter
        self._check_fit()
        self.index = copy.copy(weights.index)
        self.index.tensor_paths = weights.index.tensor_paths | adapter.replacements

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
        shape, dtype = self.weights.header(name)
        update, scale = self._update(name, where)
        return AdaptedTensor(
            lambda: self.weights.read(name, where),
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
        if name in self.weights.index.tensor_paths:
            _, dtype = self.weights.header(name)
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
        adapter, known = self.adapter, self.weights.index.tensor_paths
        unknown = [name for name in adapter.updates if name not in known]
        if unknown:
            raise MergeError(
                f"Adapter {adapter.name} does not fit {self.base}: {len(unknown)} of the "
                f"{len(adapter.updates)} weights that it changes are not there, the first is "
                f"{min(unknown)}; was it trained on another architecture or number of layers?"
            )
        for name in [*adapter.updates, *(r for r in adapter.replacements if r in known)]:
            shape, expected = adapter.shape(name), self.weights.header(name)[0]
            # An adapter tells convolutions as [out, rest].
            if shape not in (expected, (expected[0], math.prod(expected[1:]))):
                raise MergeError(
                    f"Adapter {adapter.name} does not fit {self.base}: it changes {name} as "
                    f"{list(shape)}, but there it is {list(expected)}; was it trained on a model "
                    "of another size?"
                )
