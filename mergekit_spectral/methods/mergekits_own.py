"""What is assumed about mergekit's own merge methods, which do not say it themselves."""

from __future__ import annotations

from mergekit.merge_methods.base import MergeMethod
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.costs import MethodCosts, TensorInputs, Work

STACKED_COPIES = 3
"""Tensors that are held for each input: the stack of deltas, their signs, and what is kept."""
SORT_BYTES = 12
"""Bytes for each entry of one sort: float32 magnitudes and int64 places."""


class MergekitCosts:
    """The costs of a method of mergekit's: passes over entries, on stacks of all inputs.

    Args:
        method: the method.
    """

    reads_lazily = False

    def __init__(self, method: MergeMethod):
        self._method = method

    @property
    def averages_all(self) -> bool:
        """Whether an entry's result is the mean of all inputs, over the sum of their weights."""
        return self._method.spec.name == "linear" or averages_all(self._method)

    def count_work(self, tensor: TensorInputs) -> Work:
        """Count the operations of merging a tensor."""
        return Work(entries=float(tensor.shape.numel() * tensor.count))

    def peak_memory(self, tensor: TensorInputs) -> int:
        """Return the bytes that merging a tensor takes besides the inputs and the result."""
        per_entry = STACKED_COPIES * tensor.count * tensor.itemsize + SORT_BYTES
        return tensor.shape.numel() * per_entry


def averages_all(method: MergeMethod) -> bool:
    """Whether a task arithmetic method adds all inputs' deltas, without electing signs."""
    return isinstance(method, GeneralizedTaskArithmeticMerge) and method.consensus_method is None


def costs_of(method: MergeMethod) -> MethodCosts:
    """Return what says a method's costs: a method of ours itself, or the default for mergekit's."""
    return method if isinstance(method, SpectralMethod) else MergekitCosts(method)
