"""Merge the updates of one weight into one update of low rank, which an adapter can hold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.task_deltas import TaskDelta
from mergekit_spectral.spectral import (
    Compressed,
    Delta,
    DenseDelta,
    FactoredDelta,
    LinAlgError,
    Output,
    TensorOutput,
    compress,
    exact_matmul,
    shared_bases,
)


@torch.no_grad()
@exact_matmul()
def merge_low_rank(
    method: SpectralMethod,
    name: str,
    deltas: Mapping[Hashable, TaskDelta],
    parameters: Mapping[str, Any],
    *,
    vocabulary: bool,
    rank: int | None = None,
    energy: float = 1.0,
) -> tuple[Compressed, float]:
    """Merge the updates of one weight, multiply by λ, and return the result in factors.

    The rank of a merged update is at most the sum of the inputs' ranks. The exception are
    embeddings that are merged entry by entry: their best approximation of that rank is returned.

    Args:
        method: the merge method.
        name: the weight's name, for messages.
        deltas: by input, its update as a product of two factors. All are of one shape with two
            axes.
        parameters: values by the parameter's name; of a parameter that is set for each input, a
            mapping from inputs to values.
        vocabulary: whether the weight has a vocabulary axis.
        rank: largest rank of the result; None for the rank of the merged update. A merged update of
            larger rank gets its best approximation. If the method compresses its inputs, they are
            projected onto bases of this rank that they share, and merged again.
        energy: share of the merged update's squared norm to keep. A smaller `rank` wins.

    Returns:
        The merged update, of rank 0 if it is zero, and the share of the inputs' squared norms that
        was merged; it is below 1 if the inputs were projected.

    Raises:
        MergeError: if an inner method refuses the updates, or no decomposition converges.
    """

    def merge(inputs: Mapping[Hashable, TaskDelta]) -> Delta:
        updates = list(inputs.values())
        output = _MergedDelta(factors[0])
        if not all(update.is_zero() for update in updates):
            method.merge_deltas(name, updates, list(inputs), parameters, vocabulary, output)
        return output.delta.scaled(parameters["lambda"])

    factors = [_factors(delta) for delta in deltas.values()]
    ranks = sum(each.B.shape[1] for each in factors)
    shape = next(iter(deltas.values())).shape
    try:
        merged = merge(deltas)
        if method.is_elementwise(shape, vocabulary, parameters) or not method.compresses_inputs:
            dense = not isinstance(merged, FactoredDelta)
            return compress(merged, ranks if rank is None and dense else rank, energy), 1.0
        whole = compress(merged, ranks, energy)
        if rank is None or whole.rank <= rank:
            return whole, 1.0
        weights = [parameters["weight"][each] if "weight" in parameters else 1.0 for each in deltas]
        bases = shared_bases(factors, weights, rank)
        projected, kept = [bases.project(each) for each in factors], bases.kept
        smaller = (TaskDelta(shape, each) for each in projected)
        compressed = compress(merge(dict(zip(deltas, smaller, strict=True))), rank, energy)
    except LinAlgError as error:
        raise MergeError(
            f"{method.spec.name}: the updates of {name} cannot be decomposed: {error}; check the "
            "adapters' values for this module, and the values of `lambda` and `weight`, for very "
            "large numbers."
        ) from error
    return compressed, kept


def _factors(delta: TaskDelta) -> FactoredDelta:
    assert isinstance(delta.matrix, FactoredDelta)
    return delta.matrix


class _MergedDelta(Output):
    """Collects a merged delta, which is written as a matrix or entry by entry.

    Args:
        like: an update of the same shape, dtype and device.

    Attributes:
        delta: the merged delta; zero until something is written.
    """

    def __init__(self, like: FactoredDelta):
        self.delta: Delta = FactoredDelta(like.B[:, :0], like.A[:0])
        self._entries: TensorOutput | None = None

    def write(self, places: slice | Tensor, values: Tensor) -> None:
        if self._entries is None:
            entries = torch.zeros(self.delta.shape, dtype=values.dtype, device=values.device)
            self._entries, self.delta = TensorOutput(entries), DenseDelta(entries)
        self._entries.write(places, values)

    def write_matrix(self, number: int, merged: Delta) -> None:
        assert number == 0  # the weights of peft's modules have two axes
        self.delta = merged
