"""Compute the inputs' differences to the base, dense or in factors.

NaN and infinity are refused, and small inputs are moved to the device.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cached_property, partial

import torch
from mergekit.merge_methods.base import TensorGroup
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.deferred import DeferredTensor, HostTensor
from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral import (
    Delta,
    DenseDelta,
    FactoredDelta,
    dtype_name,
    working_dtype,
)

_INPUTS_SHARE = 4
"""Inputs may fill this part of a device's free memory: decompositions need the most."""


class TaskDelta:
    """What fine-tuning did to one tensor of any shape.

    Args:
        shape: of the tensor.
        matrix: the same entries as one matrix, [out, rest]; [1, n] of a vector or scalar.
    """

    def __init__(self, shape: torch.Size, matrix: Delta):
        self.shape = shape
        self.matrix = matrix

    def is_zero(self) -> bool:
        """Whether the input equals the base."""
        return self.matrix.is_zero()

    def matrices(self) -> list[Delta]:
        """Return the difference as matrices: slices over the first of three axes, else one."""
        if not is_stack(self.shape):
            return [self.matrix]
        matrix = self.matrix
        dense = matrix if isinstance(matrix, DenseDelta) else DenseDelta(matrix.to_dense())
        matrices, out_features, in_features = self.shape
        return dense.matrices((matrices, out_features, in_features))


class SlicedTaskDelta(TaskDelta):
    """What fine-tuning did to a tensor of three axes, known slice by slice over the first.

    Args:
        shape: of the tensor, [matrices, out, in].
        slices: its matrices.
    """

    def __init__(self, shape: torch.Size, slices: Sequence[Delta]):
        self.shape = shape
        self._slices = list(slices)

    @cached_property
    def matrix(self) -> Delta:  # type: ignore[override]  # an attribute there
        """The same entries as one matrix, [matrices, out * in]."""
        return DenseDelta(as_matrix(torch.stack([part.to_dense() for part in self._slices])))

    def is_zero(self) -> bool:
        return all(part.is_zero() for part in self._slices)

    def matrices(self) -> list[Delta]:
        return self._slices


def is_stack(shape: torch.Size) -> bool:
    """Whether a tensor is a stack of matrices, over the first of three axes."""
    return len(shape) == 3


def as_matrix(tensor: Tensor) -> Tensor:
    """Give a tensor as [out, rest], a vector or scalar as one row. If contiguous, it is a view."""
    if tensor.ndim < 2:
        return tensor.reshape(1, -1)
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))


def base_and_deltas(group: TensorGroup) -> tuple[Tensor, list[TaskDelta]]:
    """Move small inputs to the device and return the base's tensor and the task deltas.

    The base's tensor is where it is stored, which is not the device if it was left in main memory.

    Raises:
        MergeError: if a tensor or an adapter's factor holds a NaN or an infinity.
    """
    assert group.base is not None
    group = moved_if_small(group, group.base.tensor.device)
    assert group.base is not None
    return stored(group.base.tensor), task_deltas(group)


def task_deltas(group: TensorGroup) -> list[TaskDelta]:
    """Return the inputs' differences to the group's base, in the inputs' order.

    An input that carries an adapter on that same base is taken in factors; its own copy of the
    base's tensor is never read.

    Raises:
        MergeError: if a tensor or an adapter's factor holds a NaN or an infinity.
    """
    assert group.base is not None
    name = group.metadata.name
    base, device = stored(group.base.tensor), group.base.tensor.device
    _check_finite(base, group.base.id, name)
    plain_base = not isinstance(group.base.tensor, AdaptedTensor)
    dtype = working_dtype(base.dtype)
    deltas: list[TaskDelta] = []
    for entry in group.non_base:
        tensor = entry.tensor
        if isinstance(tensor, AdaptedTensor) and plain_base and tensor.base_id == group.base.id:
            deltas.append(adapter_delta(tensor, entry.id, name))
        elif isinstance(tensor, AdaptedTensor):
            # The bases' difference first: it is exact where they are close, and B·A is not rounded.
            delta = tensor.update_added_to(tensor.base_in(dtype) - base.to(device))
            _check_finite(delta, entry.id, name)
            deltas.append(TaskDelta(base.shape, DenseDelta(as_matrix(delta))))
        else:
            tuned = stored(tensor)
            _check_finite(tuned, entry.id, name)
            # What mergekit makes of several tensors, such as fused experts, is on the device.
            near = base if tuned.device == base.device else base.to(device)
            tuned = tuned.to(near.device)
            difference = DenseDelta(as_matrix(tuned), as_matrix(near), device)
            deltas.append(TaskDelta(base.shape, difference))
    return deltas


def moved_if_small(group: TensorGroup, device: torch.device) -> TensorGroup:
    """Move inputs that were left in main memory to the device, if they fill little of it.

    They are read twice or more, so to move them once is faster.
    """
    size = sum(e.tensor.nbytes for e in group.entries if isinstance(e.tensor, HostTensor))
    if size == 0 or (device.type == "cuda" and size > _free_bytes(device) // _INPUTS_SHARE):
        return group
    entries = (
        replace(entry, tensor=entry.tensor.to_dense())
        if isinstance(entry.tensor, HostTensor)
        else entry
        for entry in group.entries
    )
    return TensorGroup(tuple(entries), group.metadata)


def _free_bytes(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def stored(tensor: Tensor) -> Tensor:
    """Return a tensor with entries, on the device where it is stored.

    That need not be the device where it is used. An adapter's update is added.
    """
    if isinstance(tensor, HostTensor):
        return tensor.stored
    return tensor.to_dense() if isinstance(tensor, DeferredTensor) else tensor


def adapter_delta(tensor: AdaptedTensor, owner: Hashable, name: str | None) -> TaskDelta:
    """Return what an adapter alone does to the weight that it is on, without reading that.

    Args:
        tensor: the weight with its update.
        owner: the input, for messages.
        name: the weight's name, for messages.

    Raises:
        MergeError: if the update holds a NaN or an infinity, or is out of its dtype's range.
    """
    for part in tensor.update:
        _check_finite(part, owner, name)
    shape, dtype = tensor.shape, working_dtype(tensor.dtype)
    update = [part.to(dtype) for part in tensor.update]
    if len(update) == 2:
        B, A = update
        pairs = zip(B, A, strict=True) if is_stack(B.shape) else [(B, A)]
        deltas = [FactoredDelta(tensor.scale * left, right) for left, right in pairs]
        if not all(delta.norm <= torch.finfo(dtype).max for delta in deltas):
            raise MergeError(
                f"The update of tensor {name} by {owner} is out of the range of "
                f"{dtype_name(dtype)}; its factors or `lora_alpha` are far too "
                "large, so repair or replace that adapter."
            )
        deltas = [delta.without_cancellation() for delta in deltas]
        if is_stack(B.shape):
            return SlicedTaskDelta(shape, deltas)
        return TaskDelta(shape, deltas[0])
    if len(update) == 1:
        return TaskDelta(shape, DenseDelta(as_matrix(tensor.scale * update[0])))
    zeros = partial(torch.zeros, dtype=dtype, device=tensor.device)
    if len(shape) < 2:
        return TaskDelta(shape, DenseDelta(as_matrix(zeros(shape))))
    if is_stack(shape):
        nothing = FactoredDelta(zeros(shape[1], 0), zeros(0, shape[2]))
        return SlicedTaskDelta(shape, [nothing] * shape[0])
    return TaskDelta(shape, FactoredDelta(zeros(shape[0], 0), zeros(0, math.prod(shape[1:]))))


def is_finite(tensor: Tensor) -> bool:
    """Tell whether a tensor holds no NaN and no infinity."""
    # The extremes carry any, and take a twelfth of the time of looking at each entry.
    return not tensor.numel() or bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def _check_finite(tensor: Tensor, owner: Hashable, name: str | None) -> None:
    if not is_finite(tensor):
        raise MergeError(
            f"Tensor {name} of {owner} holds a NaN or an infinity in {dtype_name(tensor.dtype)}; "
            "every input must be finite, so repair or replace that model."
        )
