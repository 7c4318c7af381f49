"""DRM: decompose, renormalize, prune, merge (Decom-Renorm-Merge, Chaichana et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mergekit_spectral.methods.base import Settings, SpectralMethod
from mergekit_spectral.methods.costs import (
    DENSE_BYTES,
    TensorInputs,
    Work,
    gram_memory,
    joint_work,
)
from mergekit_spectral.methods.direction import along_shared_side, shared_lengths
from mergekit_spectral.methods.parameters import (
    DENSITY,
    DIRECTION,
    EMBEDDINGS,
    LAMBDA,
    NORMALIZE,
    RANK_TOLERANCE,
    WEIGHT,
)
from mergekit_spectral.spectral import (
    Coordinates,
    Delta,
    Entries,
    FactoredDelta,
    Merge,
    RenormalizedCoordinates,
    Store,
    above_tolerance,
    disjoint_mean,
    joint_decomposition,
    merge_entries,
    stored_in,
)


class DRM(SpectralMethod):
    """Sign election and disjoint mean in the joint basis, on renormalized and pruned rows.

    Attributes:
        coordinates: what the inputs are pruned by.
    """

    coordinates: type[Coordinates] = RenormalizedCoordinates

    def __init__(self) -> None:
        super().__init__(
            name="drm",
            pretty_name="DRM",
            summary="Joint SVD, rows renormalized to unit length, pruned, sign election, disjoint "
            "mean",
            reference_url="https://github.com/yophis/decom-renorm-merge",
            parameters=(
                WEIGHT,
                DENSITY,
                LAMBDA,
                NORMALIZE,
                DIRECTION,
                RANK_TOLERANCE,
                EMBEDDINGS,
            ),
        )

    @along_shared_side
    def merge_matrices(self, deltas: Sequence[Delta], settings: Settings) -> Delta:
        tolerance = settings["rank_tolerance"]
        joint = joint_decomposition(deltas, above_tolerance(tolerance), resolution=tolerance)
        rows = self.coordinates(joint, deltas)
        merged = joint.basis.new_empty(rows.shape)
        drop = smallest(rows, settings["density"])
        merge = self._elect_and_average(settings)
        merge_entries(rows, merge, stored_in(merged), drop, votes=settings["weight"])
        return FactoredDelta(joint.basis, merged)

    def merge_elementwise(self, entries: Entries, settings: Settings, store: Store) -> None:
        merge_entries(entries, self._elect_and_average(settings), store, votes=settings["weight"])

    def matrix_work(self, tensor: TensorInputs) -> Work:
        side, other = shared_lengths(tensor.settings["direction"], tensor.matrix_shape)
        return joint_work(side, other, tensor.known_ranks, tensor.count)

    def dense_memory(self, tensor: TensorInputs) -> float:
        side, _ = shared_lengths(tensor.settings["direction"], tensor.matrix_shape)
        return DENSE_BYTES * tensor.shape.numel() + gram_memory(side, tensor.count)

    def _elect_and_average(self, settings: Settings) -> Merge:
        return partial(disjoint_mean, weights=settings["weight"], normalize=settings["normalize"])


def smallest(entries: Entries, densities: Sequence[float]) -> int | list[int]:
    """Count the entries below the threshold, and itself: j = N − round(N·p) for a density p.

    Where all densities agree the threshold is common, with N the entries of all inputs; where they
    differ each input has its own.
    """
    if len(set(densities)) == 1:
        N = entries.count * entries.numel
        return N - round(N * min(densities[0], 1.0))
    N = entries.numel
    return [N - round(N * min(density, 1.0)) for density in densities]
