"""Merge adapters into one adapter, without the base's weights.

The rank of a merged delta of LoRA inputs is at most the sum of their ranks, so it can be written as
an adapter itself. mergekit plans the merge in the same way as any other. Only the last step, adding
the merged delta to the base, is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from mergekit_spectral.adapters.writing import LayerKind, NewLayer
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.loaders import HeaderLoader
from mergekit_spectral.host.lora_inputs import AdaptedLoader, find_adapter_files
from mergekit_spectral.host.models import read_configuration
from mergekit_spectral.host.plan import PlannedTensor, plan_tensors
from mergekit_spectral.host.recipe_check import find_spectral_method, require_valid_recipe
from mergekit_spectral.host.structure import ModelStructure
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.factored_merge import merge_low_rank
from mergekit_spectral.methods.task_deltas import TaskDelta, adapter_delta
from mergekit_spectral.spectral import Compressed, exact_matmul


class BaseWithoutWeights:
    """The names and shapes of a model's weights, from its configuration alone.

    Attributes:
        index: index with the names of the weights.
        headers: shapes of the weights, and float32 as their dtype, in which adapters are merged.
        config: the model's configuration.
        architecture: mergekit's definition of the model's architecture.
        structure: the model's modules.
        modules: names of all modules.
        kinds: kinds of the modules that peft adapts by a product of two matrices, by name.

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
                f"mergekit has no definition of the architecture {name}, so its adapters cannot be "
                "merged without the base's weights; merge with mergekit-yaml instead."
            )
        self.architecture = architecture
        self.structure = ModelStructure.of(self.config, options.trust_remote_code)
        try:
            skeleton = self.structure.model
        except Exception as error:  # an inconsistent configuration may raise any exception
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
        """Raise an error: the weights have no values."""
        raise NotImplementedError(f"the weights of {self.model} were not read")


@dataclass(frozen=True)
class MergedWeight:
    """The update of one weight in the merged adapter.

    Attributes:
        module: name of the module that the weight belongs to.
        compressed: the update, already multiplied by the recipe's λ. Its `kept` is the share of
            the merged update's squared norm.
        inputs_kept: share of the inputs' squared norms that was merged, the mean over the inputs;
            below 1 if they were projected.
        kind: kind of the module.
    """

    module: str
    compressed: Compressed
    inputs_kept: float
    kind: LayerKind

    @property
    def layer(self) -> NewLayer:
        """The update as an adapter's layer."""
        return NewLayer(self.compressed.delta.B, self.compressed.delta.A, self.kind)


@dataclass(frozen=True)
class AdapterMerge:
    """A planned merge of adapters on one base.

    Attributes:
        method: the recipe's merge method.
        base: names and shapes of the base's weights.
        folders: folders of the base and of the inputs, by a description of each for messages.
        dropped: names of tensors in the adapters that the merged adapter cannot hold: whole
            tensors, and updates of biases and of modules that peft does not adapt.
    """

    method: SpectralMethod
    base: BaseWithoutWeights
    folders: Mapping[str, Path]
    dropped: Sequence[str]
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
        """Merge the weights one by one.

        Args:
            rank: largest rank of a weight; None for the rank of its merged delta.
            energy: share of each merged delta's squared norm to keep. See `merge_low_rank`.

        Yields:
            The weights whose merged delta is not zero, in the model's order.

        Raises:
            MergeError: if an input holds a NaN or an infinity, or no decomposition converges.
        """
        for tensor in self._tensors:
            module = _module(tensor)
            compressed, inputs_kept = merge_low_rank(
                self.method,
                tensor.name,
                self._deltas(tensor),
                self._parameters(tensor),
                vocabulary=tensor.vocabulary,
                rank=rank,
                energy=energy,
            )
            if compressed.rank:
                yield MergedWeight(module, compressed, inputs_kept, self.base.kinds[module])

    def _inputs(self, tensor: PlannedTensor) -> list[ModelReference]:
        return [reference for reference in tensor.inputs if reference in self._loaders]

    @torch.no_grad()
    @exact_matmul()
    def _deltas(self, tensor: PlannedTensor) -> dict[Hashable, TaskDelta]:
        deltas: dict[Hashable, TaskDelta] = {}
        for reference in self._inputs(tensor):
            loader, name = self._loaders[reference], tensor.names[reference]
            adapted = loader.get_tensor(name)
            assert isinstance(adapted, AdaptedTensor)
            deltas[reference] = adapter_delta(adapted, loader.adapter.name, name)
        return deltas

    def _parameters(self, tensor: PlannedTensor) -> dict[str, Any]:
        """Return the method's parameters; those of each input as mappings from inputs to values."""
        parameters = dict(tensor.shared)
        for parameter in self.method.spec.input_parameters:
            own = {each: tensor.per_input[each][parameter.name] for each in self._inputs(tensor)}
            parameters[parameter.name] = own
        return parameters


def plan_adapter_merge(config: MergeConfiguration, options: MergeOptions) -> AdapterMerge:
    """Open the adapters of a recipe, and have mergekit plan their merge.

    Args:
        config: a recipe for one of this package's methods, whose inputs are all ``base+adapter``.
        options: mergekit's options.

    Raises:
        MergeError: if the recipe cannot be merged into an adapter, or an adapter cannot be read or
            does not fit the base.
    """
    method = find_spectral_method(config.merge_method)
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
        method=method,
        base=base,
        folders={"the base model": Path(reference.model.path)}
        | {f"the adapter {found.name}": found.weights.parent for found in files.values()},
        dropped=_find_dropped([loader.adapter for loader in loaders.values()], tensors),
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
            "To merge into an adapter, write the inputs under `models:`, not under `slices:` or "
            "`modules:`."
        )
    if config.tokenizer_source or config.tokenizer:
        raise MergeError(
            "An adapter keeps the tokenizer of its base: remove "
            f"`{'tokenizer_source' if config.tokenizer_source else 'tokenizer'}` from the recipe, "
            "or merge with mergekit-yaml instead."
        )
    base = config.base_model
    assert base is not None  # `require_valid_recipe` has refused recipes without one
    inputs = [entry.model for entry in config.models if entry.model != base]
    for reference in inputs:
        if reference.lora is None or reference.model_copy(update={"lora": None}) != base:
            raise MergeError(
                f"Input {reference} is not an adapter on {base}; to merge into an adapter, every "
                "input must be written base+adapter, with the recipe's `base_model` as its base."
            )
    if not inputs or base.lora is not None:
        raise MergeError(
            "To merge into an adapter, the recipe needs at least one input written base+adapter, "
            f"and a `base_model` that is not written so itself; `base_model` is {base}."
        )
    return base, inputs
