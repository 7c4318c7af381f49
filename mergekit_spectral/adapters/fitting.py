"""How an adapter's updates sit on the weights of a base."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version

from torch import nn

from mergekit_spectral.adapters.base_weights import BaseWeights, Shape
from mergekit_spectral.adapters.lora import Addition, LoraAdapter, NotAProductError, Product
from mergekit_spectral.adapters.structure import ModelStructure
from mergekit_spectral.errors import MergeError
from mergekit_spectral.tensor_names import kind_of


def fitted(
    adapter: LoraAdapter, base: str, weights: BaseWeights, structure: ModelStructure
) -> LoraAdapter:
    """Return the adapter with the names and the orientation that a base's files give its weights.

    Args:
        adapter: as peft wrote it.
        base: the base's name, for messages.
        weights: the base's weights.
        structure: the base's modules.

    Raises:
        NotAProductError: if it changes a parameter that cannot be found, or that mergekit does not
            merge as it is.
        MergeError: if the adapter changes weights that the base has not, or of other shapes, or
            nothing says which way around it changes a square weight.
    """
    known = weights.index.tensor_paths
    fitting = copy.copy(adapter)
    wrapped = _wrapped_parameters(adapter, base, known, structure)
    names = _stored_names(adapter, base, known, structure)
    fitting.updates = {names[name]: update for name, update in adapter.updates.items()}
    fitting.replacements = {names[name]: key for name, key in adapter.replacements.items()}
    if names or not wrapped:
        _check_names(fitting, base, known)
    own_names = {stored: name for name, stored in names.items()}
    _orient(fitting, base, weights, structure, own_names)
    _check_shapes(fitting, base, weights)
    fitting.updates |= wrapped
    return fitting


def _wrapped_parameters(
    adapter: LoraAdapter, base: str, known: Collection[str], structure: ModelStructure
) -> dict[str, Product]:
    """Return the updates of fused experts, [experts, out, in], by the parameters' names.

    peft's `target_parameters` wraps the parameters of one module one after the other. The factors
    of the last have the module's own name, of those before it the name with ``.base_layer``, once
    more for each step back.
    """
    found: dict[str, Product] = {}
    for wrapped, (B, A) in adapter.wrapped.items():
        name, depth = wrapped.replace(".base_layer", ""), wrapped.count(".base_layer")
        module = name_in(structure.modules, name)
        own = structure.modules[module] if module in structure.modules else nn.Module()
        parameters = {
            key: parameter
            for key, parameter in own.named_parameters(recurse=False)
            if _is_targeted(adapter, f"{name}.{key}")
        }
        if depth >= len(parameters):
            raise NotAProductError(adapter.name, f"LoRA on a parameter of {name}")
        parameter_name, parameter = list(parameters.items())[-1 - depth]
        full = f"{module}.{parameter_name}"
        parts = structure.parts(full, known)
        if parameter.ndim != 3 or not parts or not structure.is_planned(full):
            raise NotAProductError(adapter.name, f"LoRA on the parameter {full}")
        key = f"{name}.{parameter_name}"
        ranks, alphas = adapter.settings([key])
        rank, alpha = ranks[key], alphas[key]
        experts = len(parameter)
        shapes = adapter.wrapped_shapes(wrapped)
        if (shapes[0][1], shapes[1][0]) != (rank * experts, rank * experts):
            own_rank = f"{shapes[1][0]} rows for {experts} experts"
            raise adapter.rank_error(full, rank, own_rank)
        transposed = bool(getattr(own, "is_transposed", False))
        scale = adapter.scale(rank, alpha)
        update = Product(B, A, rank, scale, transposed, experts=experts)
        sides = shapes[0][0], shapes[1][1]
        shape = (experts, *(sides[::-1] if transposed else sides))
        if shape != parameter.shape:
            raise _shape_error(adapter, base, full, shape, tuple(parameter.shape))
        found[full] = update
    return found


def _is_targeted(adapter: LoraAdapter, parameter: str) -> bool:
    targets = adapter.config.target_parameters or []
    return any(f".{parameter}".endswith(f".{target}") for target in targets)


def _stored_names(
    adapter: LoraAdapter, base: str, known: Collection[str], structure: ModelStructure
) -> dict[str, str]:
    """Return the names that the base's files give to the weights that an adapter changes."""
    found = {name: name_in(known, name) for name in (*adapter.updates, *adapter.replacements)}
    unknown = {name for name, stored in found.items() if stored not in known}
    # Some models of transformers 5 have other names for their modules than their files have.
    renamed = structure.module_names(known) if unknown else {}
    lost: dict[str, str] = {}
    for name in sorted(unknown):
        own = name_in(renamed, name)
        if own in renamed:
            found[name] = renamed[own]
            lost.setdefault(kind_of(own), own)
    for own in lost.values():
        if not structure.is_found_by_mergekit(own, known):
            raise MergeError(
                f"Adapter {adapter.name} changes {own}, which the files of {base} hold as "
                f"{renamed[own]}; mergekit {version('mergekit')} does not find such tensors by "
                "either name and leaves them out of every merge of this architecture, so merge the "
                "adapter into its base with peft instead."
            )
    return found


def name_in(known: Collection[str], name: str) -> str:
    """Return a weight's name among the `known`, or `name` itself if it is not among them.

    Files may lack the model's own name before those of its layers (``transformer.`` in GPT-2's on
    the hub), or have it where the adapter, trained on the bare model, lacks it.
    """
    shorter = name.partition(".")[2]
    if name in known or shorter in known:
        return name if name in known else shorter
    longer = {first for first in (k.partition(".")[0] for k in known) if f"{first}.{name}" in known}
    return f"{longer.pop()}.{name}" if len(longer) == 1 else name


def _check_names(adapter: LoraAdapter, base: str, known: Collection[str]) -> None:
    # A head that the base ties to its embeddings comes with the weight that it is an update of.
    unknown = [n for n in adapter.updates if n not in known and n not in adapter.replacements]
    fits = len(adapter.updates) - len(unknown)
    if not unknown and (fits or any(name in known for name in adapter.replacements)):
        return
    if not unknown:
        raise MergeError(f"Adapter {adapter.name} does not fit {base}: it changes no weight of it.")
    if all(isinstance(adapter.updates[name], Addition) for name in unknown):
        advice = "its lora_bias adds to biases, so it needs a base that has them."
    else:
        advice = "was it trained on another architecture or number of layers?"
    raise MergeError(
        f"Adapter {adapter.name} does not fit {base}: of the {len(adapter.updates)} weights that "
        f"it changes {fits} are there and {len(unknown)} are not, the first is {min(unknown)}; "
        f"{advice}"
    )


def _orient(
    adapter: LoraAdapter,
    base: str,
    weights: BaseWeights,
    structure: ModelStructure,
    own_names: Mapping[str, str],
) -> None:
    """Transpose the updates of the layers that store their weights as [in, out].

    peft decides by the class of each layer, and saves one ``fan_in_fan_out`` for all of them: the
    last one's. GPT-2 has both Conv1D, [in, out], and a Linear head, [out, in]. `own_names` are the
    adapter's names by those in the base's files.
    """
    products = {
        name: update
        for name, update in adapter.updates.items()
        if isinstance(update, Product) and not update.embedding
    }
    by_shape = {name: _transposed_by_shape(adapter, name, weights) for name in products}
    by_kind = {
        _kind(name): transposed for name, transposed in by_shape.items() if transposed is not None
    }
    for name, update in products.items():
        module = name_in(structure.modules, own_names[name].removesuffix(".weight"))
        transposed = by_shape[name]
        if _is_targeted(adapter, own_names[name]):
            transposed = False
        elif module in structure.modules:
            transposed = structure.is_conv1d(module)
        elif transposed is None:
            transposed = by_kind.get(_kind(name))
        if transposed is None:
            raise MergeError(
                f"Adapter {adapter.name} changes {name}, which is square, and transformers cannot "
                f"build {base} to show whether that layer stores its weight as [out, in] or as "
                "[in, out]; merge the adapter into its base yourself and name the result."
            )
        adapter.updates[name] = replace(update, transposed=transposed)


def _transposed_by_shape(adapter: LoraAdapter, name: str, weights: BaseWeights) -> bool | None:
    """Return whether a weight can only take its update transposed; None if it is square."""
    update = adapter.updates[name]
    assert isinstance(update, Product)
    sides = adapter.update_shape(name)
    if sides[0] == sides[1]:
        return None
    if name not in weights.index.tensor_paths:
        return update.transposed
    # An update that fits neither way is refused later, with its shape.
    turned: bool = sides == weights.header(name)[0][::-1]
    return update.transposed != turned


def _kind(weight: str) -> str:
    """Return ``c_proj`` of ``transformer.h.0.attn.c_proj.weight``."""
    return weight.rpartition(".")[0].rpartition(".")[2]


def _check_shapes(adapter: LoraAdapter, base: str, weights: BaseWeights) -> None:
    known = weights.index.tensor_paths
    given = [(name, adapter.replacement_shape(name)) for name in adapter.replacements]
    given += [(name, adapter.update_shape(name)) for name in adapter.updates]
    for name, shape in given:
        if name not in known and name not in adapter.updates:
            continue
        there = weights.header(name)[0] if name in known else adapter.replacement_shape(name)
        # An adapter tells convolutions as [out, rest].
        if shape not in (there, (*there[:1], math.prod(there[1:]))):
            raise _shape_error(adapter, base, name, shape, there)


def _shape_error(
    adapter: LoraAdapter, base: str, name: str, shape: Shape, there: Shape
) -> MergeError:
    return MergeError(
        f"Adapter {adapter.name} does not fit {base}: it changes {name} as {list(shape)}, but "
        f"there it is {list(there)}; was it trained on a model of another size or vocabulary?"
    )
