"""The updates of a recipe's inputs, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from mergekit.common import ModelReference
from mergekit.merge_methods.base import TensorEntry, TensorGroup, TensorMetadata
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.tensor_names import kind_of
from mergekit_spectral.host.plan import PlannedTensor
from mergekit_spectral.methods.task_deltas import TaskDelta, adapter_delta, task_deltas
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.spectral import Delta


@dataclass(frozen=True)
class Updates:
    """What the inputs change of one tensor.

    Attributes:
        tensor: as planned.
        deltas: by input, in the recipe's order; None of one that it is not merged with.
        base_norms: Frobenius norms of the base, of each of its matrices; None if it was not read,
            because the inputs are adapters on it.
    """

    tensor: PlannedTensor
    deltas: tuple[TaskDelta | None, ...]
    base_norms: tuple[float, ...] | None

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return next(delta.shape for delta in self.deltas if delta is not None)


@dataclass(frozen=True)
class SkippedTensor:
    """A tensor that is not looked at.

    Attributes:
        name: of it.
        why: in a few words; empty if nobody asked for it.
    """

    name: str
    why: str


def inputs_of(recipe: Recipe) -> list[ModelReference]:
    """Return the models that a recipe merges, without those that they are compared to."""
    models = dict.fromkeys(model for group in recipe.groups for model in group.models)
    return [model for model in models if model not in recipe.base_models]


def chosen(
    plan: Sequence[PlannedTensor],
    inputs: Sequence[ModelReference],
    pattern: str | None,
    sample: int | None,
) -> tuple[list[PlannedTensor], list[SkippedTensor]]:
    """Return the tensors to look at, and the others.

    Those can be looked at that the base and an input have, in one shape.

    Args:
        plan: of all tensors.
        inputs: without the base.
        pattern: a glob; all names if None.
        sample: how many of each kind of weight, evenly over the layers; all if None.
    """
    reasons = {tensor.name: _incomparable(tensor, inputs) for tensor in plan}
    wanted = [
        tensor
        for tensor in plan
        if not reasons[tensor.name] and (pattern is None or fnmatch(tensor.name, pattern))
    ]
    if sample is not None:
        wanted = _sampled(wanted, sample)
    names = {tensor.name for tensor in wanted}
    return wanted, [SkippedTensor(name, why) for name, why in reasons.items() if name not in names]


def _sampled(tensors: Sequence[PlannedTensor], count: int) -> list[PlannedTensor]:
    kinds: dict[str, list[PlannedTensor]] = {}
    for tensor in tensors:
        kinds.setdefault(kind_of(tensor.name), []).append(tensor)
    kept = {
        own[int(place)].name
        for own in kinds.values()
        for place in torch.linspace(0, len(own) - 1, min(count, len(own))).round()
    }
    return [tensor for tensor in tensors if tensor.name in kept]


def _incomparable(tensor: PlannedTensor, inputs: Sequence[ModelReference]) -> str:
    """Say why inputs cannot be compared at a tensor, or return an empty text."""
    if tensor.base_model is None:
        return "merged without a base"
    if tensor.inputs.get(tensor.base_model) is None:
        return f"not in {tensor.base_model}"
    if all(tensor.inputs.get(model) is None for model in inputs):
        return "merged with none of the inputs"
    if len({value.shape for value in tensor.inputs.values() if value is not None}) > 1:
        return "of several shapes"
    return ""


def read_updates(tensor: PlannedTensor, inputs: Sequence[ModelReference]) -> Updates:
    """Read one tensor of all inputs, and of the base unless all are adapters on it.

    mergekit's cache must have the loaders of the models.
    """
    there = [model for model in inputs if tensor.inputs.get(model) is not None]
    own = {model: tensor.read(model) for model in there}
    adapters = {m: v for m, v in own.items() if isinstance(v, AdaptedTensor)}
    if all(m in adapters and adapters[m].base_id == tensor.base_model for m in there):
        found = [adapter_delta(value, model, tensor.name) for model, value in adapters.items()]
        norms = None
    else:
        assert tensor.base_model is not None
        base = tensor.read(tensor.base_model)
        entries = [TensorEntry(id=tensor.base_model, tensor=base, is_base=True)]
        entries += [TensorEntry(id=m, tensor=value, is_base=False) for m, value in own.items()]
        found = task_deltas(TensorGroup(tuple(entries), TensorMetadata(name=tensor.name)))
        norms = tuple(float(torch.linalg.vector_norm(W, dtype=torch.float32)) for W in _parts(base))
    deltas = dict(zip(there, found, strict=True))
    return Updates(tensor, tuple(map(deltas.get, inputs)), norms)


def _parts(tensor: Tensor) -> Sequence[Tensor]:
    return tuple(tensor) if tensor.ndim == 3 else (tensor,)


def matrices(updates: Updates) -> Iterator[tuple[str, list[Delta | None], float | None]]:
    """Yield a tensor's matrices: names, numbered if it has three axes, updates and base's norm."""
    name = updates.tensor.name
    own = [None if delta is None else delta.matrices() for delta in updates.deltas]
    count = updates.shape[0] if len(updates.shape) == 3 else 1
    for number in range(count):
        label = f"{name}[{number}]" if len(updates.shape) == 3 else name
        norm = None if updates.base_norms is None else updates.base_norms[number]
        yield label, [None if parts is None else parts[number] for parts in own], norm
