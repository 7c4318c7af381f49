"""Select the tensors to inspect, and read the inputs' updates of one tensor."""

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
from mergekit_spectral.methods.task_deltas import TaskDelta, adapter_delta, is_stack, task_deltas
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.spectral import Delta


@dataclass(frozen=True)
class Updates:
    """The inputs' updates of one tensor.

    Attributes:
        tensor: the planned tensor.
        deltas: update of each input, in the recipe's order; None for an input that is not merged
            into this tensor.
        base_norms: Frobenius norms of the base's matrices; None if the base was not read because
            all inputs are adapters on it.
    """

    tensor: PlannedTensor
    deltas: tuple[TaskDelta | None, ...]
    base_norms: tuple[float, ...] | None

    @property
    def shape(self) -> torch.Size:
        """The tensor's shape."""
        return next(delta.shape for delta in self.deltas if delta is not None)


@dataclass(frozen=True)
class SkippedTensor:
    """A tensor that is not inspected.

    Attributes:
        name: name of the tensor.
        why: why it cannot be inspected, in a few words; empty if it could be, but was not selected.
    """

    name: str
    why: str


def inputs_of(recipe: Recipe) -> list[ModelReference]:
    """Return the models that a recipe merges, without its base models."""
    models = dict.fromkeys(model for group in recipe.groups for model in group.models)
    return [model for model in models if model not in recipe.base_models]


def select_tensors(
    plan: Sequence[PlannedTensor],
    inputs: Sequence[ModelReference],
    pattern: str | None,
    sample: int | None,
) -> tuple[list[PlannedTensor], list[SkippedTensor]]:
    """Select the tensors to inspect.

    A tensor can be inspected if it is in the base model and in an input, with the same shape.

    Args:
        plan: all planned tensors.
        inputs: the inputs, without the base model.
        pattern: glob that the tensors' names must match; None for all names.
        sample: number of tensors of each kind of weight, evenly over the layers; None for all.

    Returns:
        The selected tensors, and those that are left out.
    """
    reasons = {tensor.name: _why_not(tensor, inputs) for tensor in plan}
    selected = [
        tensor
        for tensor in plan
        if not reasons[tensor.name] and (pattern is None or fnmatch(tensor.name, pattern))
    ]
    if sample is not None:
        selected = _sample(selected, sample)
    names = {tensor.name for tensor in selected}
    return selected, [
        SkippedTensor(name, why) for name, why in reasons.items() if name not in names
    ]


def _sample(tensors: Sequence[PlannedTensor], count: int) -> list[PlannedTensor]:
    """Return at most `count` tensors of each kind of weight, evenly over the layers."""
    kinds: dict[str, list[PlannedTensor]] = {}
    for tensor in tensors:
        kinds.setdefault(kind_of(tensor.name), []).append(tensor)
    kept = {
        same_kind[int(position)].name
        for same_kind in kinds.values()
        for position in torch.linspace(0, len(same_kind) - 1, min(count, len(same_kind))).round()
    }
    return [tensor for tensor in tensors if tensor.name in kept]


def _why_not(tensor: PlannedTensor, inputs: Sequence[ModelReference]) -> str:
    """Return why a tensor cannot be inspected, or an empty string if it can."""
    if tensor.base_model is None:
        return "merged without a base model"
    if tensor.inputs.get(tensor.base_model) is None:
        return f"not in {tensor.base_model}"
    if all(tensor.inputs.get(model) is None for model in inputs):
        return "not merged from any input"
    if len({value.shape for value in tensor.inputs.values() if value is not None}) > 1:
        return "not of the same shape in all models"
    return ""


def read_updates(tensor: PlannedTensor, inputs: Sequence[ModelReference]) -> Updates:
    """Read one tensor of all inputs, and of the base unless all inputs are adapters on it.

    The models' loaders must be in mergekit's cache, see `lend_opened_files`.

    Raises:
        MergeError: if a tensor or an adapter's factor holds a NaN or an infinity.
    """
    merged = [model for model in inputs if tensor.inputs.get(model) is not None]
    values = {model: tensor.read(model) for model in merged}
    adapters = {m: v for m, v in values.items() if isinstance(v, AdaptedTensor)}
    if all(m in adapters and adapters[m].base_id == tensor.base_model for m in merged):
        found = [adapter_delta(value, model, tensor.name) for model, value in adapters.items()]
        norms = None
    else:
        assert tensor.base_model is not None
        base = tensor.read(tensor.base_model)
        entries = [TensorEntry(id=tensor.base_model, tensor=base, is_base=True)]
        entries += [TensorEntry(id=m, tensor=value, is_base=False) for m, value in values.items()]
        found = task_deltas(TensorGroup(tuple(entries), TensorMetadata(name=tensor.name)))
        norms = tuple(float(torch.linalg.vector_norm(W, dtype=torch.float32)) for W in _parts(base))
    deltas = dict(zip(merged, found, strict=True))
    return Updates(tensor, tuple(map(deltas.get, inputs)), norms)


def _parts(tensor: Tensor) -> Sequence[Tensor]:
    return tuple(tensor) if is_stack(tensor.shape) else (tensor,)


def matrices(updates: Updates) -> Iterator[tuple[str, list[Delta | None], float | None]]:
    """Yield a tensor's matrices one by one.

    A tensor with three axes has one matrix for each index of its first axis; others are one matrix.

    Yields:
        The matrix's name, with its index if the tensor has three axes; the update of each input,
        [out, in]; and the Frobenius norm of the base's matrix, None if the base was not read.
    """
    name = updates.tensor.name
    by_input = [None if delta is None else delta.matrices() for delta in updates.deltas]
    count = updates.shape[0] if is_stack(updates.shape) else 1
    for number in range(count):
        label = f"{name}[{number}]" if is_stack(updates.shape) else name
        norm = None if updates.base_norms is None else updates.base_norms[number]
        yield label, [None if parts is None else parts[number] for parts in by_input], norm
