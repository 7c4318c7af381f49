"""ACTMat: RegMean without data, the updates in place of the activations (arXiv 2604.01329)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import copysign
from statistics import fmean
from typing import TypedDict

from torch import Tensor

from mergekit_spectral.methods.base import SpectralMethod, along_shared_side, shared_lengths
from mergekit_spectral.methods.costs import BLOCK_BYTES, EXACT, TensorInputs, Work, joint_work
from mergekit_spectral.methods.parameters import (
    DIRECTION,
    EMBEDDINGS,
    LAMBDA,
    NORMALIZE_WEIGHTS,
    RANK_TOLERANCE,
    WEIGHT,
)
from mergekit_spectral.spectral import (
    STREAM_BLOCK,
    Delta,
    Entries,
    FactoredDelta,
    LinAlgError,
    Output,
    above_tolerance,
    joint_decomposition,
    merge_entries,
    relative_mean,
    relative_weights,
    slices,
)

FLOAT32_TOLERANCE = 0.01
"""The smallest `rank_tolerance` τ at which products are in float32: rounding grows with 1/τ²."""
FIT_BYTES = 12
"""Bytes for each entry of a fit in float64, and of its copy in the working dtype."""
TRIANGLE_BYTES = 36
"""Bytes for each entry of the square matrix that is decomposed in float64 (fitted)."""


class ACTMatSettings(TypedDict):
    """ACTMat's parameters for one tensor. Lists have a value for each input."""

    weight: list[float]
    normalize: bool
    direction: str
    rank_tolerance: float


class ACTMat(SpectralMethod):
    """The matrix that does to each update's strong directions most nearly what that update does.

    With the second moments D_tᵀ·D_t of the updates' rows in place of those of the activations, it
    minimizes Σ |w_t|·‖(D − D_t)·D_tᵀ‖². `merge_matrices` does that on the output side, where D_tᵀ
    takes the place of D_t.
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
        if _needs_float64(tolerance):
            weighted = [(weight, delta.in_float64()) for weight, delta in weighted]
        magnitudes = [abs(weight) for weight, _ in weighted]
        # An input of negative weight counts as −D_t, which has the same second moment.
        roots = [
            delta.scaled((magnitude / max(magnitudes)) ** 0.5)
            for magnitude, (_, delta) in zip(magnitudes, weighted, strict=True)
        ]
        # The weights cancel in the fit, so without `normalize` it is scaled by their mean.
        scale = 1.0 if settings["normalize"] else fmean(magnitudes)

        # Few directions pass the default tolerance. Where all do, this takes a tenth more time.
        joint = joint_decomposition(roots, above_tolerance(tolerance), few=True, exact=False)
        U, s = joint.basis, joint.spectrum[: joint.basis.shape[1]].to(joint.basis)[:, None]
        if not s.isfinite().all():
            raise LinAlgError("the singular values are out of their dtype's range")
        fit = U.new_zeros(U.shape[1], deltas[0].shape[1])
        for directions in slices(len(fit), len(roots) * fit.shape[1], STREAM_BLOCK):
            for root, (weight, delta) in zip(roots, weighted, strict=True):
                own = _by_second_moment(root, delta, U[:, directions], s[directions])
                fit[directions].add_(own, alpha=copysign(scale, weight))
        return FactoredDelta(U.to(device, dtype), fit.to(device, dtype))

    def merge_elementwise(self, entries: Entries, settings: ACTMatSettings, output: Output) -> None:
        mean = partial(relative_mean, weights=settings["weight"], normalize=settings["normalize"])
        merge_entries(entries, mean, output)

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = shared_lengths(tensor)
        joint = joint_work(side, other, tensor.known_ranks, tensor.count, passes=0)
        # Two products more of each input and the basis; those with factors are small.
        more = 0.0 if tensor.known_ranks else 2.0 * side * side * other * tensor.count
        time = EXACT if _needs_float64(tensor.settings["rank_tolerance"]) else 1.0
        return replace(joint, products=time * (joint.products + more), cubes=time * joint.cubes)

    def dense_memory(self, tensor: TensorInputs) -> float:
        if not _needs_float64(tensor.settings["rank_tolerance"]):
            return super().dense_memory(tensor)
        side, other = shared_lengths(tensor)
        # Blocks in float64 take twice as much.
        return BLOCK_BYTES + FIT_BYTES * side * other + TRIANGLE_BYTES * side**2


def _needs_float64(rank_tolerance: float) -> bool:
    return rank_tolerance < FLOAT32_TOLERANCE


def _by_second_moment(root: Delta, delta: Delta, U: Tensor, s: Tensor) -> Tensor:
    """Return diag(s)⁻²·Uᵀ·(R·Rᵀ)·D, [k, in], one input's part of the fit.

    Args:
        root: R, [out, in], whose second moment R·Rᵀ is the input's.
        delta: D, [out, in].
        U: [out, k], directions that the inputs share.
        s: their singular values, [k, 1].
    """
    # Divided step by step: s² may be out of float32's range.
    shared = root.T.project(root.project(U).div_(s).T).div_(s)
    return delta.project(shared.T)
