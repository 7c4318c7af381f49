"""STAR: spectral truncation and rescale (Lee et al., arXiv 2502.10339)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.costs import (
    TensorInputs,
    Work,
    gram_memory,
    separate_work,
)
from mergekit_spectral.methods.parameters import EMBEDDINGS, ETA, LAMBDA, NORMALIZE, WEIGHT
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    Output,
    linear_combination,
    mean_weights,
    merge_entries,
    truncate,
    weighted_mean,
)


class STARSettings(TypedDict):
    """STAR's parameters for one tensor. Lists have a value for each input."""

    weight: list[float]
    eta: list[float]
    normalize: bool


class STAR(SpectralMethod):
    """The weighted mean of the inputs, each cut to its leading directions at its nuclear norm."""

    averages_all = True

    def __init__(self) -> None:
        super().__init__(
            name="star",
            pretty_name="STAR",
            summary="Cuts each update to its leading singular directions, keeps its nuclear norm, "
            "averages",
            reference_url="https://arxiv.org/abs/2502.10339",
            parameters=(WEIGHT, ETA, LAMBDA, NORMALIZE, EMBEDDINGS),
        )

    def merge_matrices(self, deltas: Sequence[Delta], settings: STARSettings) -> Delta:
        truncated = (truncate(d, eta) for d, eta in zip(deltas, settings["eta"], strict=True))
        weights = mean_weights(settings["weight"], settings["normalize"])
        return linear_combination(truncated, weights)

    def merge_elementwise(self, entries: Entries, settings: STARSettings, output: Output) -> None:
        mean = partial(weighted_mean, weights=settings["weight"], normalize=settings["normalize"])
        merge_entries(entries, mean, output)

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = sorted(tensor.matrix_shape)
        return separate_work(side, other, tensor.known_ranks, tensor.count)

    def dense_memory(self, tensor: TensorInputs) -> float:
        return gram_memory(tensor, min(tensor.matrix_shape))
