"""ACTMat: RegMean without data, the updates in place of the activations (arXiv 2604.01329)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import copysign
from statistics import fmean
from typing import TypedDict

from mergekit_spectral.methods.base import SpectralMethod, along_shared_side, shared_lengths
from mergekit_spectral.methods.costs import TensorInputs, Work, joint_work
from mergekit_spectral.methods.parameters import (
    DIRECTION,
    EMBEDDINGS,
    LAMBDA,
    NORMALIZE_WEIGHTS,
    RANK_TOLERANCE,
    WEIGHT,
)
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    FactoredDelta,
    Output,
    above_tolerance,
    joint_decomposition,
    merge_entries,
    relative_mean,
    relative_weights,
)

FLOAT32_TOLERANCE = 0.01
"""The smallest `rank_tolerance` τ at which products are in float32: rounding grows with 1/τ²."""


class ACTMatSettings(TypedDict):
    """ACTMat's parameters for one tensor. Lists have a value for each input."""

    weight: list[float]
    normalize: bool
    direction: str
    rank_tolerance: float


class ACTMat(SpectralMethod):
    """The matrix that does to each update's own directions most nearly what that update does.

    With the second moments C_t = D_tᵀ·D_t of the updates' rows in place of those of the inputs'
    activations, it minimizes Σ w_t·‖(D − D_t)·D_tᵀ‖².
    """

    def __init__(self) -> None:
        super().__init__(
            name="actmat",
            pretty_name="ACTMat",
            summary="Fits all updates at once by least squares, each in its own directions",
            reference_url="https://arxiv.org/abs/2604.01329",
            parameters=(
                WEIGHT,
                LAMBDA,
                NORMALIZE_WEIGHTS,
                replace(DIRECTION, default="auto"),
                replace(RANK_TOLERANCE, default=0.1),
                EMBEDDINGS,
            ),
        )

    @along_shared_side
    def merge_matrices(self, deltas: Sequence[Delta], settings: ACTMatSettings) -> Delta:
        tolerance, dtype, device = settings["rank_tolerance"], deltas[0].dtype, deltas[0].device
        weights = relative_weights(settings["weight"], settings["normalize"])
        weighted = [pair for pair in zip(weights, deltas, strict=True) if pair[0]]
        if not weighted:
            return deltas[0].scaled(0.0)
        if tolerance < FLOAT32_TOLERANCE:
            weighted = [(weight, delta.in_float64()) for weight, delta in weighted]
        magnitudes = [abs(weight) for weight, _ in weighted]
        # An input of negative weight counts as −D_t, which has the same second moment.
        roots = [
            delta.scaled((magnitude / max(magnitudes)) ** 0.5)
            for magnitude, (_, delta) in zip(magnitudes, weighted, strict=True)
        ]
        # The weights cancel in the fit, so without `normalize` it is scaled by their mean.
        scale = 1.0 if settings["normalize"] else fmean(magnitudes)

        joint = joint_decomposition(roots, above_tolerance(tolerance), resolution=tolerance)
        U, s = joint.basis, joint.spectrum[: joint.basis.shape[1]].to(joint.basis)[:, None]
        # Uᵀ·Σ w_t·(D_t·D_tᵀ)·D_t, where Σ |w_t|·D_t·D_tᵀ is U·diag(s²)·Uᵀ.
        moments = U.new_zeros(U.shape[1], deltas[0].shape[1])
        for root, (weight, delta) in zip(roots, weighted, strict=True):
            shared = root.T.project((root.project(U) / s).T)
            moments.add_(delta.project((shared / s).T), alpha=copysign(scale, weight))
        return FactoredDelta(U.to(device, dtype), moments.to(device, dtype))

    def merge_elementwise(self, entries: Entries, settings: ACTMatSettings, output: Output) -> None:
        mean = partial(relative_mean, weights=settings["weight"], normalize=settings["normalize"])
        merge_entries(entries, mean, output)

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = shared_lengths(tensor)
        joint = joint_work(side, other, tensor.known_ranks, tensor.count, passes=0)
        if tensor.known_ranks:
            return joint
        # Two products more of each input and the basis.
        return joint + Work(products=2.0 * side * side * other * tensor.count)
