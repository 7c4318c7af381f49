"""LoRA inputs of a merge: read in factors, in the place of mergekit's merged copies."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from mergekit.architecture import arch_info_for_config
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from torch import Tensor
from transformers import PretrainedConfig

from mergekit_spectral.adapters.adapted import AdaptedTensor, Update
from mergekit_spectral.adapters.adapter_files import AdapterFiles, find_adapter
from mergekit_spectral.adapters.base_model import BaseWeights
from mergekit_spectral.adapters.fitting import fit_to_base
from mergekit_spectral.adapters.lora import LoraAdapter, NotAProductError, Product
from mergekit_spectral.adapters.stored_tensors import Header
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.checkpoints import StoredWeights
from mergekit_spectral.host.loaders import Loader, LoaderTable, TensorLoader
from mergekit_spectral.host.mergeable import why_not_mergeable
from mergekit_spectral.host.structure import ModelStructure
from mergekit_spectral.recipe.sections import base_models
from mergekit_spectral.spectral import dtype_name

LOG = logging.getLogger(__name__)


class AdaptedLoader(TensorLoader):
    """Reads the weights of an adapted model, its base's and its updates apart.

    Args:
        base: the reference of the base alone.
        weights: the base's weights.
        adapter: the adapter, as peft wrote it.
        structure: the base's modules.
        ties: weights that the base's files may lack because they are tied to another, with the
            names of those that they may be tied to.

    Attributes:
        adapter: the adapter, with the base's names for the weights that it changes.
        index: the base's tensors, those that the adapter brings, and those in `fused` and `untied`.
        fused: tensors that the adapter changes as one and the base's files hold in parts, with the
            names of the parts.
        untied: tensors that the adapter leaves alone while it changes what the base ties them to,
            with the name under which the base's files have them.

    Raises:
        MergeError: if the adapter does not fit the base, see `fit_to_base`, or changes tensors of
            integers or booleans.
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
        self.adapter = fit_to_base(adapter, str(base), weights, structure)
        self.untied = dict(self._left_behind(ties))
        known = weights.index.tensor_paths
        self.fused = {
            name: structure.find_parts(name, known)
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

    def read(self, name: str, device: torch.device) -> AdaptedTensor:
        """Return a tensor, with its update read and the base's weight not."""
        if name in self.adapter.replacements:
            return self._replacement(name, device)
        shape, dtype = self.header(name)
        update, scale = self._update(name, device)
        return AdaptedTensor(
            lambda: self._read_base(name, device),
            self.base,
            update,
            scale,
            torch.Size(shape),
            dtype,
            device,
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

    def headers(self) -> dict[str, Header]:
        """Return the shapes and dtypes of all tensors, by name."""
        return {name: self.header(name) for name in self.index.tensor_paths}

    def _read_base(self, name: str, device: torch.device) -> Tensor:
        if name in self.fused:
            parts = {part: partial(self.weights.read, part, device) for part in self.fused[name]}
            return self._structure.assemble(name, parts)
        return self.weights.read(self.untied.get(name, name), device)

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

        peft trains a module, and not what other modules share with it: with an adapter on the
        embeddings alone, the head keeps the base's weights.
        """
        known = self.weights.index.tensor_paths
        changed = self.adapter.updates.keys() | self.adapter.replacements.keys()
        for name, others in ties.items():
            stored = next((other for other in others if other in known), None)
            if name not in known and name not in changed and stored in changed:
                yield name, stored

    def _replacement(self, name: str, device: torch.device) -> AdaptedTensor:
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


def read_adapters_in_factors(
    config: MergeConfiguration, options: MergeOptions, table: LoaderTable
) -> None:
    """Have mergekit load a recipe's ``base+adapter`` inputs in factors.

    What is not an added product of two matrices goes mergekit's way, through a merged copy, if the
    options name a folder for those; so does a base model that is itself ``base+adapter``.

    Args:
        config: the recipe.
        options: mergekit's.
        table: mergekit's, for the length of the merge.

    Raises:
        MergeError: an adapter cannot be read, does not fit its base, or is of a kind that needs a
            merged copy and there is no folder for it.
    """
    references = {model for model in config.referenced_models() if model.lora}
    bases = references & base_models(config)
    for base in sorted(bases, key=str):
        _open_merged_base(base, options, table)
    loaders: dict[ModelReference, Loader] = {}
    for reference in sorted(references - bases, key=str):
        try:
            loaders[reference] = _open_adapted(reference, options, table)
        except NotAProductError as refusal:
            if options.lora_merge_cache is None:
                raise
            LOG.warning(
                "%s uses %s, which is not an added product of two matrices, so it is merged "
                "through a full copy of the model in %s.",
                reference.lora,
                refusal.what,
                options.lora_merge_cache,
            )
            table.open(reference)
    table.put(loaders)


def _open_merged_base(reference: ModelReference, options: MergeOptions, table: LoaderTable) -> None:
    if options.lora_merge_cache is None:
        raise MergeError(
            f"The base model {reference} is itself an adapter, and inputs can only be compared to "
            "a full model; give --lora-merge-cache FOLDER to make a full copy of it."
        )
    table.open(reference)


def _open_adapted(
    reference: ModelReference, options: MergeOptions, table: LoaderTable
) -> AdaptedLoader:
    adapter = LoraAdapter(find_adapter_files(reference, options))
    base = reference.model_copy(update={"lora": None})
    weights = StoredWeights(table.open(base))
    config = base.config(options.trust_remote_code)
    loader = open_on_base(adapter, base, weights, config, options.trust_remote_code)
    for sentence in find_oddities(loader, base):
        LOG.warning("%s", sentence)
    return loader


def find_adapter_files(reference: ModelReference, options: MergeOptions) -> AdapterFiles:
    """Return the adapter's files of a ``base+adapter`` reference.

    Raises:
        MergeError: the adapter is not found, or peft cannot read its configuration.
    """
    assert reference.lora is not None
    path, revision = reference.lora.path, reference.lora.revision
    return find_adapter(path, revision, options.transformers_cache)


def open_on_base(
    adapter: LoraAdapter,
    base: ModelReference,
    weights: BaseWeights,
    config: PretrainedConfig,
    trust_remote_code: bool,
) -> AdaptedLoader:
    """Return a loader for an adapter on its base.

    Args:
        adapter: the adapter, as peft wrote it.
        base: the reference of the base alone.
        weights: the base's weights.
        config: the base's configuration.
        trust_remote_code: whether the base's own code may be run.

    Raises:
        MergeError: the adapter does not fit the base.
    """
    structure = ModelStructure.of(config, trust_remote_code)
    return AdaptedLoader(base, weights, adapter, structure, _find_tied_weights(config))


def find_oddities(loader: AdaptedLoader, base: ModelReference) -> Iterator[str]:
    """Yield a warning for each suspicious difference between an adapter and its base."""
    adapter = loader.adapter
    trained_on = adapter.config.base_model_name_or_path
    if trained_on and _short_name(trained_on) != _short_name(base.model.path):
        yield (f"Adapter {adapter.name} was trained on {trained_on}, but its base here is {base}.")
    if extra := sorted(adapter.replacements.keys() - loader.weights.index.tensor_paths.keys()):
        yield (
            f"Adapter {adapter.name} contains {', '.join(extra)}, not found in {base}; the merge "
            "leaves it out unless it is part of the architecture."
        )


def _find_tied_weights(config: PretrainedConfig) -> dict[str, tuple[str, ...]]:
    """Return the weights that a model's files may lack, each with those that it may be tied to."""
    architecture = arch_info_for_config(config)
    if architecture is None:
        return {}
    return {w.name: tuple(w.tied_names) for w in architecture.all_weights(config) if w.tied_names}


def _short_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1].lower()
