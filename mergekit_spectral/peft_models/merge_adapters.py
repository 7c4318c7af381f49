"""Merge adapters that are loaded on one model into a new adapter of that model."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import peft
import torch

from mergekit_spectral.adapters.lora import NotAProductError, require_products
from mergekit_spectral.adapters.writing import NewLayer, in_stored_dtype, with_one_rank
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.recipe_check import find_spectral_method
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.factored_merge import merge_low_rank
from mergekit_spectral.methods.task_deltas import TaskDelta, adapter_delta
from mergekit_spectral.peft_models.layers import (
    LoadedLayer,
    add_adapter,
    find_layers,
    find_replaced_modules,
)
from mergekit_spectral.recipe.findings import suggest_name
from mergekit_spectral.spectral import exact_matmul

PerAdapter = float | Sequence[float] | Mapping[str, float]
"""A number for all adapters, one for each in their order, or numbers by the adapters' names."""


@dataclass(frozen=True, repr=False)
class MergedAdapter:
    """What `merge_adapters` added to a model.

    Attributes:
        name: name of the new adapter.
        ranks: rank of each merged update, by the module's name.
        kept: by the module's name, the share of the merged update's squared Frobenius norm that the
            adapter has; 1 without `rank` and `energy`.
        inputs_kept: by the module's name, the share of the inputs' squared Frobenius norms that was
            merged, as a mean over the inputs; below 1 only where the method compressed its inputs
            to meet `rank`.
        left_out: what the inputs change and the new adapter does not have.
    """

    name: str
    ranks: Mapping[str, int]
    kept: Mapping[str, float]
    inputs_kept: Mapping[str, float]
    left_out: tuple[str, ...]

    def __repr__(self) -> str:
        low, high = min(self.ranks.values()), max(self.ranks.values())
        rank = f"{low}" if low == high else f"{low} to {high}"
        inputs = min(self.inputs_kept.values())
        return (
            f"Adapter {self.name}: {len(self.ranks)} weights of rank {rank}, which keep at least "
            f"{min(self.kept.values()):.1%} of the squared norm of the merged updates"
            + f", and at least {inputs:.1%} of the inputs'" * (inputs < 1)
            + "."
        )


def merge_adapters(
    model: peft.PeftModel,
    adapters: Sequence[str],
    weights: PerAdapter | None = None,
    adapter_name: str = "merged",
    method: str = "knots_ties",
    *,
    rank: int | None = None,
    energy: float = 1.0,
    **parameters: Any,
) -> MergedAdapter:
    """Merge LoRA adapters of a loaded model into a new adapter of the same model.

    The result is that of ``mergekit-spectral adapter`` for the same adapters. The updates B·A are
    merged, not the factors B and A, so adapters may have different ranks, and may adapt different
    modules. The base's weights are not read: they may be quantized, or on the meta device.

    The new adapter is not active until ``model.set_adapter(adapter_name)``. It can be saved with
    ``model.save_pretrained(folder, selected_adapters=[adapter_name])``, and loaded again. Its
    factors are on the devices and in the dtypes of the inputs' factors.

    Args:
        model: a model with all adapters loaded, by ``PeftModel.from_pretrained`` and
            ``model.load_adapter``.
        adapters: names of the adapters to merge.
        weights: the method's parameter ``weight``: one number for each adapter, in their order or
            by their names, or one for all. By default the method's default, 1.
        adapter_name: name of the new adapter.
        method: a method of this package, such as ``drm``, ``knots_ties``, ``star``, ``iso``,
            ``tsvm`` or ``actmat``.
        rank: largest rank of a weight's update in the new adapter. By default each keeps the rank
            of its merged update, which is at most the sum of the inputs' ranks. Methods' own
            parameter ``rank`` cannot be set.
        energy: share of the squared Frobenius norm of each merged update to keep, above 0 and at
            most 1. A smaller `rank` wins.
        parameters: parameters of the method, such as ``density=0.5``, with ``lambda_`` for λ. Those
            that a recipe can set for each input take values as `weights` does.

    Returns:
        The ranks and losses of the merged updates, and what was left out. What an adapter cannot
        hold is left out with a warning: biases, whole modules (``modules_to_save``), and parameters
        of modules that are no layers (``target_parameters``).

    Raises:
        MergeError: if an adapter is not loaded or does more than to add products of two matrices
            (DoRA, for example), the name is taken, a parameter is unknown or out of range, a factor
            has no values or not finite ones, or all merged updates are zero. The model is then as
            it was.
    """
    configs = _find_configs(model, adapters, adapter_name)
    chosen = find_spectral_method(method)
    bound = _bind(chosen, adapters, weights, parameters)
    if rank is not None and rank < 1:
        raise MergeError(f"`rank` must be at least 1, got {rank}.")
    if not 0 < energy <= 1:
        raise MergeError(f"`energy` must be above 0 and at most 1, got {energy}.")

    ranks: dict[str, int] = {}
    kept: dict[str, float] = {}
    all_inputs_kept: dict[str, float] = {}
    layers: dict[str, NewLayer] = {}
    for layer in find_layers(model):
        names = [each for each in adapters if layer.has(each)]
        if not names or not layer.is_product:
            continue
        compressed, inputs_kept = merge_low_rank(
            chosen,
            layer.weight,
            _deltas(layer, adapters),
            bound,
            vocabulary=layer.vocabulary,
            rank=rank,
            energy=energy,
        )
        if compressed.rank:
            ranks[layer.name], kept[layer.name] = compressed.rank, compressed.kept
            all_inputs_kept[layer.name] = inputs_kept
            dtype = reduce(torch.promote_types, map(layer.factor_dtype, names))
            delta = compressed.delta
            B, A = (in_stored_dtype(each, dtype, layer.name) for each in (delta.B, delta.A))
            layers[layer.name] = NewLayer(B, A, layer.kind)
    if not layers:
        raise MergeError(
            "The merged update of every weight is zero, so there is no adapter to add; check the "
            "adapters, `weights` and `lambda_`."
        )
    left_out = tuple(_find_left_out(model, configs))
    if left_out:
        warnings.warn(
            f"Left out: {', '.join(left_out)}. The merged adapter has only low-rank updates of "
            "weight matrices.",
            stacklevel=2,
        )
    add_adapter(model, adapter_name, with_one_rank(layers), adapters)
    return MergedAdapter(adapter_name, ranks, kept, all_inputs_kept, left_out)


def _find_configs(
    model: peft.PeftModel, adapters: Sequence[str], adapter_name: str
) -> dict[str, peft.LoraConfig]:
    """Return the configurations of the adapters, which are LoRA's, by name."""
    if not isinstance(model, peft.PeftModel):
        raise MergeError(
            f"merge_adapters takes a peft.PeftModel with its adapters loaded, got a "
            f"{type(model).__name__}; load them with PeftModel.from_pretrained."
        )
    if isinstance(adapters, str) or not adapters or len(set(adapters)) < len(adapters):
        raise MergeError(f"`adapters` must be a list of different names, got {adapters!r}.")
    if adapter_name in model.peft_config:
        raise MergeError(
            f"The model has an adapter {adapter_name} already; give another `adapter_name`, or "
            f'remove it with model.delete_adapter("{adapter_name}").'
        )
    configs = {}
    for name in adapters:
        if name not in model.peft_config:
            raise MergeError(
                f"The model has no adapter {name}; {suggest_name(name, model.peft_config)}"
            )
        try:
            configs[name] = require_products(name, model.peft_config[name])
        except NotAProductError as refusal:
            raise MergeError(
                f"Adapter {name} uses {refusal.what}, which is not an added product of two "
                "matrices, so it cannot be merged into a LoRA adapter; merge it into its base with "
                "model.merge_and_unload, and merge whole models."
            ) from refusal
    return configs


def _bind(
    method: SpectralMethod,
    adapters: Sequence[str],
    weights: PerAdapter | None,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the values of all of a method's parameters; those set per input by adapter."""
    given = {"lambda" if name == "lambda_" else name: value for name, value in parameters.items()}
    specs = {spec.name: spec for spec in method.spec.parameters}
    if weights is not None:
        given["weights"] = weights
    offered = {"weights" if name == "weight" else name for name in specs if name != "rank"}
    for name in given:
        if name not in offered:
            known = {"lambda_" if each == "lambda" else each for each in offered}
            raise MergeError(
                f"{method.spec.name} has no parameter {name}; {suggest_name(name, known)}"
            )
    bound = {}
    for name, spec in specs.items():
        key = "weights" if name == "weight" else name
        if key not in given and spec.required:
            raise MergeError(f"{method.spec.name} needs a value for its parameter {name}.")
        value = given.get(key, None if spec.required else spec.default)
        if spec in method.spec.input_parameters:
            own = _of_each(key, value, adapters)
            bound[name] = {each: spec.validate(one) for each, one in own.items()}
        else:
            bound[name] = spec.validate(value)
    return bound


def _of_each(name: str, value: Any, adapters: Sequence[str]) -> dict[str, Any]:
    """Return the values of a parameter by adapter."""
    if isinstance(value, Mapping):
        if value.keys() != set(adapters):
            raise MergeError(
                f"`{name}` must have a value for each of {', '.join(adapters)}, got values for "
                f"{', '.join(map(str, value))}."
            )
        return {each: value[each] for each in adapters}
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != len(adapters):
            raise MergeError(
                f"`{name}` must have {len(adapters)} values, one for each adapter, got "
                f"{len(value)}."
            )
        return dict(zip(adapters, value, strict=True))
    return dict.fromkeys(adapters, value)


@torch.no_grad()
@exact_matmul()
def _deltas(layer: LoadedLayer, adapters: Sequence[str]) -> dict[Hashable, TaskDelta]:
    """Return every adapter's update of a layer, zero for those that do not change it."""
    shape = next(layer.shape(each) for each in adapters if layer.has(each))
    device = layer.device(adapters)
    return {
        each: adapter_delta(layer.read(each, shape, device), each, layer.weight)
        for each in adapters
    }


def _find_left_out(model: peft.PeftModel, configs: Mapping[str, peft.LoraConfig]) -> Iterator[str]:
    """Yield what the adapters change and a merged adapter cannot hold."""
    layers = find_layers(model)
    for name, config in configs.items():
        if config.bias != "none":
            yield f"the biases of {name}"
        for module in find_replaced_modules(model, name):
            yield f"{module} of {name}"
        for layer in layers:
            if layer.has(name) and not layer.is_product:
                yield f"{layer.name} of {name}"
            if layer.has_bias(name):
                yield f"{layer.name}.bias of {name}"
