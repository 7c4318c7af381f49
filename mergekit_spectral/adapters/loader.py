"""A loader for ``base+adapter`` references, in the place of mergekit's merged copies."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from mergekit.common import ModelReference
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor, Update
from mergekit_spectral.adapters.base_weights import BaseWeights, Header
from mergekit_spectral.adapters.fitting import fitted
from mergekit_spectral.adapters.lora import LoraAdapter, Product
from mergekit_spectral.adapters.structure import ModelStructure
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.mergeable import dtype_name, why_not_mergeable


def name_among(
    known: Collection[str], key: str, aliases: Sequence[str] | None, raise_on_missing: bool
) -> str | None:
    """Return the name that a tensor asked for by `key` or its aliases has, as mergekit's loaders.

    Raises:
        KeyError: if it has none and `raise_on_missing`.
    """
    name = next((name for name in (key, *(aliases or ())) if name in known), None)
    if name is None and raise_on_missing:
        raise KeyError(key)
    return name


class AdaptedLoader:
    """Reads the weights of an adapted model, its base's and its updates apart.

    Args:
        base: the reference of the base alone.
        weights: the base's weights.
        adapter: the adapter, as peft wrote it.
        structure: the base's modules.
        ties: names that the base's files may lack because the weight is tied to another, each with
            the names of those.

    Attributes:
        adapter: the adapter, with the base's names for the weights that it changes.
        index: which tensors there are: the base's, those that the adapter brings, and those that
            it leaves alone while it changes what the base ties them to.
        fused: tensors that the adapter changes as one and the base's files hold in parts, each with
            the names of those.
        untied: the last of these, each with the name that the base's files have it under.

    Raises:
        MergeError: if the adapter does not fit the base, see `fitted`, or changes tensors of whole
            numbers or truth values.
    """

    def __init__(
        self,
        base: ModelReference,
        weights: BaseWeights,
        adapter: LoraAdapter,
        structure: ModelStructure,
        ties: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ):
        self.base = base
        self.weights = weights
        self._structure = structure
        self.adapter = fitted(adapter, str(base), weights, structure)
        self.untied = dict(self._left_behind(ties))
        known = weights.index.tensor_paths
        self.fused = {
            name: structure.parts(name, known)
            for name, update in self.adapter.updates.items()
            if isinstance(update, Product)
            and name not in known
            and name not in self.adapter.replacements
        }
        self._check_dtypes()
        brought = self.adapter.replacements | self.untied
        brought |= {name: known[parts[0]] for name, parts in self.fused.items()}
        self.index = copy.copy(weights.index)
        self.index.tensor_paths = weights.index.tensor_paths | brought

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
        name = name_among(self.index.tensor_paths, key, aliases, raise_on_missing)
        if name is None:
            return None
        where = torch.device(device)
        if name in self.adapter.replacements:
            return self._replacement(name, where)
        shape, dtype = self.header(name)
        update, scale = self._update(name, where)
        return AdaptedTensor(
            lambda: self._read(name, where),
            self.base,
            update,
            scale,
            torch.Size(shape),
            dtype,
            where,
        )

    def header(self, name: str) -> Header:
        """Return a tensor's shape and dtype."""
        if name in self.fused:
            return self.adapter.update_shape(name), self.weights.header(self.fused[name][0])[1]
        if name in self.adapter.replacements:
            known = name in self.weights.index.tensor_paths
            dtype = self.weights.header(name)[1] if known else torch.float32
            return self.adapter.replacement_shape(name), dtype
        return self.weights.header(self.untied.get(name, name))

    def _read(self, name: str, device: torch.device) -> Tensor:
        if name in self.fused:
            parts = {part: partial(self.weights.read, part, device) for part in self.fused[name]}
            return self._structure.converted(name, parts)
        return self.weights.read(self.untied.get(name, name), device)

    def flush(self) -> None:
        """Do nothing: files are open only while a tensor is read."""

    def _check_dtypes(self) -> None:
        known = self.weights.index.tensor_paths
        for name in self.adapter.updates:
            for part in self.fused.get(name, [name] if name in known else []):
                shape, dtype = self.weights.header(part)
                if dtype.is_floating_point:
                    continue  # float8 may be a matter of scales and of the recipe's `dtype`
                why = why_not_mergeable(part, shape, dtype, known, converted=True)
                why = why or f"is of {dtype_name(dtype)}; only real numbers can be merged"
                what = f"tensor {part} of {self.base}, which {why}"
                raise MergeError(f"Adapter {self.adapter.name} changes {what}.")

    def _left_behind(self, ties: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
        """Yield weights tied to one that the adapter changes without them, and that one's name.

        peft trains a module, not what other modules share with it: with an adapter on the
        embeddings alone the head goes on with the base's.
        """
        known = self.weights.index.tensor_paths
        changed = self.adapter.updates.keys() | self.adapter.replacements.keys()
        for name, others in ties.items():
            stored = next((other for other in others if other in known), None)
            if name not in known and name not in changed and stored in changed:
                yield name, stored

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
