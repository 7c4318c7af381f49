"""Iso: the sum of the updates with equal singular values (Marczak et al., arXiv 2502.04959)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypedDict

import torch
from torch import Tensor

from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.costs import TensorInputs, Work, triples_memory, triples_work
from mergekit_spectral.methods.parameters import (
    EMBEDDINGS,
    FLATTEN,
    LAMBDA,
    NORMALIZE_WEIGHTS,
    RANK_TOLERANCE,
    WEIGHT,
)
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    Output,
    above_tolerance,
    linear_combination,
    merge_entries,
    relative_mean,
    relative_weights,
    singular_triples,
)


class IsoSettings(TypedDict):
    """Iso's parameters for one tensor. Lists have a value for each input."""

    weight: list[float]
    normalize: bool
    rank_tolerance: float
    flatten: float


class Iso(SpectralMethod):
    """Iso-C: task arithmetic whose common directions do not drown the others."""

    compresses_inputs = True

    def __init__(self) -> None:
        super().__init__(
            name="iso",
            pretty_name="Iso-C",
            summary="Adds the updates and makes the sum's singular values more equal",
            reference_url="https://arxiv.org/abs/2502.04959",
            parameters=(
                WEIGHT,
                LAMBDA,
                NORMALIZE_WEIGHTS,
                replace(RANK_TOLERANCE, default=0.05),
                FLATTEN,
                EMBEDDINGS,
            ),
        )

    def merge_matrices(self, deltas: Sequence[Delta], settings: IsoSettings) -> Delta:
        weights = relative_weights(settings["weight"], settings["normalize"])
        total = linear_combination(deltas, weights)
        triples = singular_triples(total, above_tolerance(settings["rank_tolerance"]))
        return triples.with_values(flattened(triples.values, settings["flatten"]))

    def merge_elementwise(self, entries: Entries, settings: IsoSettings, output: Output) -> None:
        mean = partial(relative_mean, weights=settings["weight"], normalize=settings["normalize"])
        merge_entries(entries, mean, output)

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = sorted(tensor.matrix_shape)
        rank = None if tensor.known_ranks is None else sum(tensor.known_ranks)
        directions = side if rank is None else min(side, rank)
        added = Work(entries=0.0 if rank else float(side * other * tensor.count))
        multiplied_out = Work(products=float(side * other * directions))
        return added + triples_work(side, other, rank, directions) + multiplied_out

    def dense_memory(self, tensor: TensorInputs) -> float:
        return triples_memory(tensor)


def flattened(values: Tensor, flatten: float) -> Tensor:
    """Return s_i^(1 − f), scaled to the same Euclidean norm, so that the sum keeps its size.

    Args:
        values: singular values s, [k], all positive.
        flatten: f, from 0 (as they are) to 1 (all equal).
    """
    if not len(values):
        return values
    flat: Tensor = (values / values[0]) ** (1 - flatten)
    size = float(torch.linalg.vector_norm(values) / torch.linalg.vector_norm(flat))
    return flat * size
