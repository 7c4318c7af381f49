"""DRM: decompose, renormalize, prune, merge (Decom-Renorm-Merge, Chaichana et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

from mergekit_spectral.methods.base import SpectralMethod, along_shared_side, joint_basis
from mergekit_spectral.methods.parameters import (
    DENSITY,
    DIRECTION,
    EMBEDDINGS,
    LAMBDA,
    NORMALIZE,
    RANK,
    RANK_TOLERANCE,
    RENORMALIZE,
    WEIGHT,
)
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    FactoredDelta,
    KeptRange,
    MergeFunction,
    Output,
    RenormalizedCoordinates,
    TensorOutput,
    UnnormalizedCoordinates,
    disjoint_mean,
    merge_entries,
)


class DRMSettings(TypedDict):
    """DRM's parameters for one tensor. Lists have a value for each input."""

    weight: list[float]
    density: list[float]
    normalize: bool
    direction: str
    rank_tolerance: float
    rank: float | None
    renormalize: bool


class DRM(SpectralMethod):
    """Sign election and disjoint mean in the joint basis, on renormalized and pruned rows."""

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
                RANK,
                RENORMALIZE,
                EMBEDDINGS,
            ),
        )

    @along_shared_side
    def merge_matrices(self, deltas: Sequence[Delta], settings: DRMSettings) -> Delta:
        joint = joint_basis(deltas, settings)
        kind = RenormalizedCoordinates if settings["renormalize"] else UnnormalizedCoordinates
        rows = kind(joint, deltas)
        merged = joint.basis.new_empty(rows.shape)
        merge_entries(
            rows,
            _elect_and_average(settings),
            TensorOutput(merged),
            kept_range(rows, settings["density"]),
            votes=settings["weight"],
        )
        return FactoredDelta(joint.basis, merged)

    def merge_elementwise(self, entries: Entries, settings: DRMSettings, output: Output) -> None:
        merge_entries(entries, _elect_and_average(settings), output, votes=settings["weight"])


def _elect_and_average(settings: DRMSettings) -> MergeFunction:
    return partial(disjoint_mean, weights=settings["weight"], normalize=settings["normalize"])


def kept_range(entries: Entries, densities: Sequence[float]) -> KeptRange | list[KeptRange]:
    """Return the range that DRM keeps: from N − round(N·p) on, for N entries and a density p.

    If all densities are equal the threshold is common, with N the entries of all inputs. If they
    differ, each input has its own.
    """

    def of(total: int, density: float) -> KeptRange:
        return KeptRange(first=total - round(total * min(density, 1.0)))

    if len(set(densities)) == 1:
        return of(entries.total, densities[0])
    return [of(entries.numel, density) for density in densities]
