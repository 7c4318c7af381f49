"""Merging adapters into one adapter: the same recipes, without the base's weights.

The merged delta of LoRA inputs has a rank of at most Σr, so it is an adapter itself. mergekit plans
the merge, weight by weight, as it plans any other; only the last step, adding to the base, is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class AdapterMerge:
    """A planned merge of adapters on one base.

    Args:
        config: a recipe for one of this package's methods, whose inputs are all ``base+adapter``.
        options: mergekit's.

    Attributes:
        base: what is known of the base.
        adapters: the inputs, in the recipe's order.
        folders: of the base, if it is local, and of the inputs, by what they are.
        dropped: names of what the adapters carry and an adapter of products cannot: whole tensors,
            updates of biases and of modules that peft does not adapt.

    Raises:
        MergeError: if the recipe is of another kind, or an adapter cannot be read or does not fit.
    """

    def __init__(self, config: MergeConfiguration, options: MergeOptions):
        method = find_method(config.merge_method)
        if not isinstance(method, SpectralMethod):
            raise MergeError(
                f"{config.merge_method} cannot be merged into an adapter; `merge_method` must be "
                "drm, star or knots_*."
            )
        require_valid_recipe(config, method)
        self._method = method
        base, references = _find_base_and_inputs(config)
        files = {reference: find_adapter_files(reference, options) for reference in references}
        self.base = BaseWithoutWeights(base, options)
        self.folders = {"the base model": Path(base.model.path)} | {
            f"the adapter {adapter.name}": adapter.weights.parent for adapter in files.values()
        }
        self._loaders = {
            r: AdaptedLoader(base, self.base, LoraAdapter(own), self.base.structure)
            for r, own in files.items()
        }
        self.adapters = [loader.adapter for loader in self._loaders.values()]
        self._tensors = self._plan(config, options)
        planned = {tensor.name for tensor in self._tensors}
        self.dropped = sorted(
            {
                f"{name} of {adapter.name}"
                for adapter in self.adapters
                for name in (*adapter.replacements, *adapter.updates)
                if name in adapter.replacements or name not in planned
            }
        )

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
        limit = rank if isinstance(merged, FactoredDelta) else rank or self._total_rank(tensor)
        return compress(merged, limit, energy)

    def _plan(self, config: MergeConfiguration, options: MergeOptions) -> list[PlannedTensor]:
        loaders = {self.base.model: HeaderLoader(self.base.index, self.base.headers)}
        for reference, loader in self._loaders.items():
            loaders[reference] = HeaderLoader(loader.index, loader.headers())
        tensors = plan_tensors(config, self.base.architecture, loaders, options)
        return [tensor for tensor in tensors if self._is_changed(tensor)]

    def _is_changed(self, tensor: PlannedTensor) -> bool:
        return _module(tensor) in self.base.kinds and any(
            isinstance(loader.adapter.updates.get(name), Product)
            for loader, name in self._inputs(tensor)
        )

    def _inputs(self, tensor: PlannedTensor) -> Iterator[tuple[AdaptedLoader, str]]:
        for reference in tensor.inputs:
            if reference in self._loaders:
                yield self._loaders[reference], tensor.names[reference]

    def _total_rank(self, tensor: PlannedTensor) -> int:
        products = [loader.adapter.updates.get(name) for loader, name in self._inputs(tensor)]
        return sum(product.rank for product in products if isinstance(product, Product))

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
