"""How an adapter's updates sit on the weights of a base."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.metadata import version

from mergekit_spectral.adapters.base_weights import BaseWeights
from mergekit_spectral.adapters.lora import Addition, LoraAdapter, Product
from mergekit_spectral.adapters.structure import ModelStructure
from mergekit_spectral.adapters.tensor_names import kind_of, name_in
from mergekit_spectral.adapters.wrapped import is_targeted, with_all_wrapped, wrapped_updates
from mergekit_spectral.errors import MergeError


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
    adapter = with_all_wrapped(adapter, structure)
    fitting = copy.copy(adapter)
    wrapped = wrapped_updates(adapter, base, weights, structure)
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
        if is_targeted(adapter, own_names[name]):
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
            raise adapter.shape_error(base, name, shape, there)
