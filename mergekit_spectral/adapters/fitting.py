"""Match an adapter's updates to the weights in a base model's files: names, axes and shapes."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version

from mergekit_spectral.adapters.base_model import BaseStructure, BaseWeights
from mergekit_spectral.adapters.lora import Addition, LoraAdapter, Product
from mergekit_spectral.adapters.tensor_names import find_name, kind_of
from mergekit_spectral.adapters.wrapped import (
    find_wrapped_updates,
    is_targeted,
    mark_wrapped_modules,
)
from mergekit_spectral.errors import MergeError


def fit_to_base(
    adapter: LoraAdapter, base: str, weights: BaseWeights, structure: BaseStructure
) -> LoraAdapter:
    """Return a copy of the adapter with the base's names and axes for the weights it changes.

    Args:
        adapter: the adapter as peft wrote it.
        base: the base's name, for messages.
        weights: the base's weights.
        structure: the base's modules.

    Raises:
        NotAProductError: if the adapter changes a parameter that cannot be found, or that mergekit
            does not merge as one tensor.
        MergeError: if the adapter changes weights that the base does not have, or that have other
            shapes, or if it is unknown whether a square weight is [out, in] or [in, out].
    """
    known = weights.index.tensor_paths
    adapter = mark_wrapped_modules(adapter, structure)
    fitting = copy.copy(adapter)
    wrapped = find_wrapped_updates(adapter, base, weights, structure)
    names = _find_stored_names(adapter, base, known, structure)
    fitting.updates = {names[name]: update for name, update in adapter.updates.items()}
    fitting.replacements = {names[name]: key for name, key in adapter.replacements.items()}
    if names or not wrapped:
        _check_names(fitting, base, known)
    own_names = {stored: name for name, stored in names.items()}
    _orient(fitting, base, weights, structure, own_names)
    _check_shapes(fitting, base, weights)
    fitting.updates |= wrapped
    return fitting


def _find_stored_names(
    adapter: LoraAdapter, base: str, known: Collection[str], structure: BaseStructure
) -> dict[str, str]:
    """Return the names in the base's files, by the adapter's names, of the weights it changes."""
    found = {name: find_name(known, name) for name in (*adapter.updates, *adapter.replacements)}
    unknown = {name for name, stored in found.items() if stored not in known}
    # In transformers 5, some models have other names than their files for the same weights.
    renamed = structure.find_renamed(known) if unknown else {}
    renamed_kinds: dict[str, str] = {}
    for name in sorted(unknown):
        own = find_name(renamed, name)
        if own in renamed:
            found[name] = renamed[own]
            renamed_kinds.setdefault(kind_of(own), own)
    for own in renamed_kinds.values():
        if not structure.is_found_by_mergekit(own, known):
            raise MergeError(
                f"Adapter {adapter.name} changes {own}, whose name in the files of {base} is "
                f"{renamed[own]}; mergekit {version('mergekit')} finds neither name and leaves "
                "such tensors out of every merge of this architecture, so merge the adapter into "
                "its base with peft instead."
            )
    return found


def _check_names(adapter: LoraAdapter, base: str, known: Collection[str]) -> None:
    # If the base's head is tied to its embeddings, peft saves the head's weight in the adapter.
    unknown = [n for n in adapter.updates if n not in known and n not in adapter.replacements]
    fits = len(adapter.updates) - len(unknown)
    if not unknown and (fits or any(name in known for name in adapter.replacements)):
        return
    if not unknown:
        raise MergeError(
            f"Adapter {adapter.name} does not fit {base}: it changes none of the base's weights; "
            "give the base that it was trained on."
        )
    if all(isinstance(adapter.updates[name], Addition) for name in unknown):
        advice = "its lora_bias changes biases, so give a base that has biases."
    else:
        advice = "give the base that it was trained on, of the same architecture and size."
    raise MergeError(
        f"Adapter {adapter.name} does not fit {base}: it changes {len(adapter.updates)} weights, "
        f"of which the base has {fits} and lacks {len(unknown)}, such as {min(unknown)}; {advice}"
    )


def _orient(
    adapter: LoraAdapter,
    base: str,
    weights: BaseWeights,
    structure: BaseStructure,
    own_names: Mapping[str, str],
) -> None:
    """Transpose the updates of the layers that store their weights as [in, out].

    peft decides by the class of each layer. The adapter's ``fan_in_fan_out`` cannot be used: peft
    saves one value for all layers, that of the last layer. GPT-2, for example, has Conv1D layers,
    [in, out], and a Linear head, [out, in]. `own_names` has the adapter's names of the weights, by
    their names in the base's files.
    """
    products = {
        name: update
        for name, update in adapter.updates.items()
        if isinstance(update, Product) and not update.embedding
    }
    by_shape = {name: _transposed_by_shape(adapter, name, weights) for name in products}
    by_layer_name = {
        _layer_name(name): transposed
        for name, transposed in by_shape.items()
        if transposed is not None
    }
    for name, update in products.items():
        module = find_name(structure.modules, own_names[name].removesuffix(".weight"))
        transposed = by_shape[name]
        if is_targeted(adapter, own_names[name]):
            transposed = False
        elif module in structure.modules:
            transposed = structure.is_conv1d(module)
        elif transposed is None:
            transposed = by_layer_name.get(_layer_name(name))
        if transposed is None:
            raise MergeError(
                f"Adapter {adapter.name} changes {name}, which is square. Whether it is [out, in] "
                f"or [in, out] is unknown, because transformers cannot build {base}; merge the "
                "adapter into its base with peft, and give the merged model as the input."
            )
        adapter.updates[name] = replace(update, transposed=transposed)


def _transposed_by_shape(adapter: LoraAdapter, name: str, weights: BaseWeights) -> bool | None:
    """Return whether the update must be transposed to fit the weight; None if it is square."""
    update = adapter.updates[name]
    assert isinstance(update, Product)
    sides = adapter.update_shape(name)
    if sides[0] == sides[1]:
        return None
    if name not in weights.index.tensor_paths:
        return update.transposed
    # If the update fits in neither orientation, `_check_shapes` raises an error with its shape.
    transpose: bool = sides == weights.header(name)[0][::-1]
    return update.transposed != transpose


def _layer_name(weight: str) -> str:
    """Return ``c_proj`` of ``transformer.h.0.attn.c_proj.weight``."""
    return weight.rpartition(".")[0].rpartition(".")[2]


def _check_shapes(adapter: LoraAdapter, base: str, weights: BaseWeights) -> None:
    known = weights.index.tensor_paths
    given = [(name, adapter.replacement_shape(name)) for name in adapter.replacements]
    given += [(name, adapter.update_shape(name)) for name in adapter.updates]
    for name, shape in given:
        if name not in known and name not in adapter.updates:
            continue
        expected = weights.header(name)[0] if name in known else adapter.replacement_shape(name)
        # An adapter's update of a convolution has the shape [out, rest].
        if shape not in (expected, (*expected[:1], math.prod(expected[1:]))):
            raise adapter.shape_error(base, name, shape, expected)
