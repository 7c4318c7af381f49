"""TSV-M: task singular vectors, made orthonormal over all inputs (Gargiulo et al., 2412.00081)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypedDict

import torch

from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.costs import (
    EXACT,
    TensorInputs,
    Work,
    triples_memory,
    triples_work,
)
from mergekit_spectral.methods.parameters import (
    EMBEDDINGS,
    LAMBDA,
    NORMALIZE_WEIGHTS,
    RANK_TOLERANCE,
    SHARE,
    WEIGHT,
)
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    Output,
    above_tolerance,
    at_most,
    merge_entries,
    nearest_orthonormal,
    relative_mean,
    relative_weights,
    singular_triples,
)

HELD = 2.5
"""How many times the inputs' vectors are held: apart, side by side, and orthonormal (fitted)."""


class TSVMSettings(TypedDict):
    """TSV-M's parameters for one tensor. Lists have a value for each input."""

    weight: list[float]
    normalize: bool
    share: list[float]
    rank_tolerance: float


class TSVM(SpectralMethod):
    """Each input's leading singular directions, turned until they do not disturb one another."""

    compresses_inputs = True

    def __init__(self) -> None:
        super().__init__(
            name="tsvm",
            pretty_name="TSV-M",
            summary="Keeps each update's leading singular vectors, makes those of all inputs "
            "orthonormal together, and adds them",
            reference_url="https://arxiv.org/abs/2412.00081",
            parameters=(
                WEIGHT,
                LAMBDA,
                NORMALIZE_WEIGHTS,
                SHARE,
                replace(RANK_TOLERANCE, default=0.05),
                EMBEDDINGS,
            ),
        )

    def merge_matrices(self, deltas: Sequence[Delta], settings: TSVMSettings) -> Delta:
        weights = relative_weights(settings["weight"], settings["normalize"])
        above = above_tolerance(settings["rank_tolerance"])
        count = sum(weight != 0 for weight in weights)
        # An input of weight 0 takes no directions from the others.
        parts = [
            singular_triples(
                delta, at_most(limit(share, delta.shape, count), above), few=True
            ).scaled(weight)
            for delta, weight, share in zip(deltas, weights, settings["share"], strict=True)
            if weight
        ]
        if not parts:
            return deltas[0].scaled(0.0)
        together = replace(
            parts[0],
            U=nearest_orthonormal([part.U for part in parts]),
            V=nearest_orthonormal([part.V for part in parts]),
        )
        return together.with_values(torch.cat([part.values for part in parts]))

    def merge_elementwise(self, entries: Entries, settings: TSVMSettings, output: Output) -> None:
        mean = partial(relative_mean, weights=settings["weight"], normalize=settings["normalize"])
        merge_entries(entries, mean, output)

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = sorted(tensor.matrix_shape)
        ranks = tensor.known_ranks or (None,) * tensor.count
        kept = [side // tensor.count if rank is None else rank for rank in ranks]
        directions = sum(kept)
        work = Work(products=float(side * other * min(side, directions)))
        for rank, own in zip(ranks, kept, strict=True):
            work += triples_work(side, other, rank, own)
        # The vectors of each side, made orthonormal: a Gram matrix, its roots, and two products.
        orthonormal = EXACT * 3 * (side + other) * directions**2
        return work + Work(products=orthonormal, cubes=2.0 * directions**3)

    def dense_memory(self, tensor: TensorInputs) -> float:
        return triples_memory(tensor, HELD)


def limit(share: float, shape: tuple[int, int], inputs: int) -> int:
    """Return how many directions of an input of a shape [out, in] are kept at most.

    Args:
        share: of the min(out, in) / T directions that the paper keeps.
        shape: (out, in).
        inputs: T.
    """
    side = min(shape)
    return max(1, int(min(side, share * side / inputs)))
