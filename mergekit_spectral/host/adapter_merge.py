"""Merging adapters into one adapter: the same recipes, without the base's weights.

The merged delta of LoRA inputs has a rank of at most Σr, so it is an adapter itself. mergekit plans
the merge, weight by weight, as it plans any other; only the last step, adding to the base, is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.architecture import arch_info_for_config
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import ShardedTensorIndex
from mergekit.options import MergeOptions
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.lora import LoraAdapter, Product
from mergekit_spectral.adapters.stored_tensors import Header
from mergekit_spectral.adapters.writing import LayerKind
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.loaders import HeaderLoader
from mergekit_spectral.host.lora_inputs import AdaptedLoader, find_adapter_files
from mergekit_spectral.host.models import read_configuration
from mergekit_spectral.host.plan import PlannedTensor, plan_tensors
from mergekit_spectral.host.recipe_check import find_method, require_valid_recipe
from mergekit_spectral.host.structure import ModelStructure
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.task_deltas import adapter_delta
from mergekit_spectral.spectral import (
    Compressed,
    Delta,
    DenseDelta,
    FactoredDelta,
    LinAlgError,
    TensorOutput,
    compress,
    exact_matmul,
)


class BaseWithoutWeights:
    """The weights of a model that is known by its configuration alone.

    Attributes:
        index: of the weights' names.
        headers: their shapes, and float32, in which adapters are merged.
        config: the model's configuration.
        architecture: mergekit's definition of its architecture.
        structure: its modules.
        modules: names of all modules.
        kinds: of the modules that peft adapts by a product of two matrices, by name.

    Raises:
        MergeError: the configuration cannot be read, mergekit has no definition of the
            architecture, or transformers cannot build the model.
    """

    def __init__(self, model: ModelReference, options: MergeOptions):
        self.model = model
        self.config, name = read_configuration(model, options)
        architecture = arch_info_for_config(self.config)
        if architecture is None:
            raise MergeError(
                f"mergekit has no definition of the architecture {name}, so adapters on it cannot "
                "be merged without its weights; run mergekit-yaml."
            )
        self.architecture = architecture
        self.structure = ModelStructure.of(self.config, options.trust_remote_code)
        try:
            skeleton = self.structure.model
        except Exception as error:  # a configuration that contradicts itself may raise any
            raise MergeError(
                f"Model {model}: transformers cannot build {name} from its configuration "
                f"({first_line(error)})."
            ) from error
        state = skeleton.state_dict()
        self.headers = {key: (tuple(t.shape), torch.float32) for key, t in state.items()}
        self.index = ShardedTensorIndex("", True, dict.fromkeys(state, ""), [])
        modules = dict(skeleton.named_modules(remove_duplicate=False))
        self.modules = [name for name in modules if name]
        kinds = {name: LayerKind.of(module) for name, module in modules.items()}
        self.kinds = {name: kind for name, kind in kinds.items() if kind}

    def header(self, name: str) -> Header:
        """Return a weight's shape and dtype."""
        return self.headers[name]

    def read(self, name: str, device: torch.device) -> Tensor:
        """Refuse: there are no values here."""
        raise NotImplementedError(f"{self.model} is known by its configuration alone")


@dataclass(frozen=True)
class MergedWeight:
    """The update of one weight, as the merged adapter will have it.

    Attributes:
        module: the name of the module whose weight it is.
        compressed: the update, with the recipe's λ in it.
        kind: the module's.
    """

    module: str
    compressed: Compressed
    kind: LayerKind


@dataclass(frozen=True)
class AdapterMerge:
    """A planned merge of adapters on one base.

    Attributes:
        base: names and shapes of the base's weights.
        folders: folders of the base and of the inputs, by a description of each for messages.
        dropped: names of tensors in the adapters that the merged adapter cannot hold: whole
            tensors, and updates of biases and of modules that peft does not adapt.
    """

    base: BaseWithoutWeights
    folders: Mapping[str, Path]
    dropped: Sequence[str]
    _method: SpectralMethod
    _loaders: Mapping[ModelReference, AdaptedLoader]
    _tensors: Sequence[PlannedTensor]

    @property
    def adapters(self) -> list[LoraAdapter]:
        """The inputs, in the recipe's order."""
        return [loader.adapter for loader in self._loaders.values()]

    def __len__(self) -> int:
        """Return the number of weights to merge."""
        return len(self._tensors)

    def run(self, rank: int | None = None, energy: float = 1.0) -> Iterator[MergedWeight]:
        """Merge one weight after the other.

        Args:
            rank: the largest rank to give a weight; if None, the merged delta's own.
            energy: the share of each merged delta's squared norm to keep, where `rank` allows it.

        Yields:
            The weights that any input changes, in the model's order.

        Raises:
            MergeError: if an input holds a NaN or an infinity, or no decomposition converges.
        """
        for tensor in self._tensors:
            module = _module(tensor)
            try:
                compressed = self._compress(tensor, rank, energy)
            except LinAlgError as error:
                raise MergeError(
                    f"{self._method.spec.name}: the updates of {module} cannot be decomposed: "
                    f"{error}; a value of an adapter there, or of the recipe's `lambda` or "
                    "`weight`, must be very large."
                ) from error
            if compressed.rank:
                yield MergedWeight(module, compressed, self.base.kinds[module])

    @torch.no_grad()
    def _compress(self, tensor: PlannedTensor, rank: int | None, energy: float) -> Compressed:
        merged = self._merge(tensor)
        # Elementwise merging of embeddings has no low rank of its own.
        if rank is None and not isinstance(merged, FactoredDelta):
            rank = sum(product.rank for product in _products(tensor, self._loaders))
        return compress(merged, rank, energy)

    def _inputs(self, tensor: PlannedTensor) -> Iterator[tuple[AdaptedLoader, str]]:
        for reference in tensor.inputs:
            if reference in self._loaders:
                yield self._loaders[reference], tensor.names[reference]

    @exact_matmul()
    def _merge(self, tensor: PlannedTensor) -> Delta:
        deltas = []
        for loader, name in self._inputs(tensor):
            adapted = loader.get_tensor(name)
            assert isinstance(adapted, AdaptedTensor)
            deltas.append(adapter_delta(adapted, loader.adapter.name, name))
        settings = dict(tensor.shared)
        inputs = [reference for reference in tensor.inputs if reference in self._loaders]
        for parameter in self._method.spec.input_parameters:
            name = parameter.name
            settings[name] = [tensor.per_input[reference][name] for reference in inputs]
        output = _MergedDelta(deltas[0].shape)
        if not all(delta.is_zero() for delta in deltas):
            self._method.merge_deltas(deltas, settings, tensor.vocabulary, output)
        return output.delta.scaled(settings["lambda"])


class _MergedDelta(TensorOutput):
    """Collects a merged delta, whole or place by place.

    Args:
        shape: [out, in].

    Attributes:
        delta: the merged delta; zero until something is written.
    """

    def __init__(self, shape: torch.Size):
        entries = torch.zeros(shape)
        super().__init__(entries)
        self.delta: Delta = DenseDelta(entries)

    def write_matrix(self, number: int, merged: Delta) -> None:
        self.delta = merged


def plan_adapter_merge(config: MergeConfiguration, options: MergeOptions) -> AdapterMerge:
    """Open the adapters of a recipe, and have mergekit plan their merge.

    Args:
        config: a recipe for one of this package's methods, whose inputs are all ``base+adapter``.
        options: mergekit's options.

    Raises:
        MergeError: if the recipe cannot be merged into an adapter, or an adapter cannot be read or
            does not fit the base.
    """
    method = find_method(config.merge_method)
    if not isinstance(method, SpectralMethod):
        raise MergeError(
            f"{config.merge_method} cannot be merged into an adapter; `merge_method` must be "
            "drm, star or knots_*."
        )
    require_valid_recipe(config, method)
    reference, inputs = _find_base_and_inputs(config)
    files = {each: find_adapter_files(each, options) for each in inputs}
    base = BaseWithoutWeights(reference, options)
    loaders = {
        each: AdaptedLoader(reference, base, LoraAdapter(found), base.structure)
        for each, found in files.items()
    }
    headers = {reference: HeaderLoader(base.index, base.headers)}
    headers |= {each: HeaderLoader(own.index, own.headers()) for each, own in loaders.items()}
    tensors = [
        tensor
        for tensor in plan_tensors(config, base.architecture, headers, options)
        if _module(tensor) in base.kinds and _products(tensor, loaders)
    ]
    return AdapterMerge(
        base=base,
        folders={"the base model": Path(reference.model.path)}
        | {f"the adapter {found.name}": found.weights.parent for found in files.values()},
        dropped=_find_dropped([loader.adapter for loader in loaders.values()], tensors),
        _method=method,
        _loaders=loaders,
        _tensors=tensors,
    )


def _products(
    tensor: PlannedTensor, loaders: Mapping[ModelReference, AdaptedLoader]
) -> list[Product]:
    """Return the products that the adapters add to a tensor."""
    updates = [
        loaders[reference].adapter.updates.get(tensor.names[reference])
        for reference in tensor.inputs
        if reference in loaders
    ]
    return [update for update in updates if isinstance(update, Product)]


def _find_dropped(adapters: Sequence[LoraAdapter], tensors: Sequence[PlannedTensor]) -> list[str]:
    """Return the names of the adapters' tensors that the merged adapter cannot hold."""
    planned = {tensor.name for tensor in tensors}
    return sorted(
        {
            f"{name} of {adapter.name}"
            for adapter in adapters
            for name in (*adapter.replacements, *adapter.updates)
            if name in adapter.replacements or name not in planned
        }
    )


def _module(tensor: PlannedTensor) -> str:
    return tensor.name.removesuffix(".weight")


def _find_base_and_inputs(
    config: MergeConfiguration,
) -> tuple[ModelReference, list[ModelReference]]:
    """Return the recipe's one base and its inputs, in order."""
    if not config.models:
        raise MergeError(
            "An adapter is merged from whole models: write the inputs under `models:`, not under "
            "`slices:` or `modules:`."
        )
    if config.tokenizer_source or config.tokenizer:
        raise MergeError(
            "An adapter keeps the tokenizer of its base: remove "
            f"`{'tokenizer_source' if config.tokenizer_source else 'tokenizer'}` from the recipe, "
            "or run mergekit-yaml."
        )
    base = config.base_model
    assert base is not None  # as `require_valid_recipe` demands
    inputs = [entry.model for entry in config.models if entry.model != base]
    for reference in inputs:
        if reference.lora is None or reference.model_copy(update={"lora": None}) != base:
            raise MergeError(
                f"Input {reference} is not an adapter on {base}; to merge into an adapter, every "
                "input must be written base+adapter with the recipe's `base_model`."
            )
    if not inputs or base.lora is not None:
        raise MergeError(
            "An adapter is merged from at least one base+adapter input, on a `base_model` that is "
            "a plain model."
        )
    return base, inputs
