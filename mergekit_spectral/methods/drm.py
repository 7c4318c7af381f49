"""DRM: decompose, renormalize, prune, merge (Decom-Renorm-Merge, Chaichana et al.)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mergekit_spectral.methods.base import Settings, SpectralMethod
from mergekit_spectral.methods.direction import along_shared_side
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
    Delta,
    FactoredDelta,
    above_tolerance,
    disjoint_mean,
    joint_decomposition,
    prune,
    renormalize,
)


class DRM(SpectralMethod):
    """Sign election and disjoint mean in the joint basis, on renormalized and pruned rows."""

    def __init__(self) -> None:
        super().__init__(
            name="drm",
            pretty_name="DRM",
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
        rows, lengths = zip(
            *(renormalize(joint.coordinates(delta)) for delta in deltas), strict=True
        )
        pruned = prune(rows, settings["density"])
        scaled = [row.mul_(length) for row, length in zip(pruned, lengths, strict=True)]
        merged = disjoint_mean(scaled, settings["weight"], settings["normalize"])
        return FactoredDelta(joint.basis, merged)

    def merge_elementwise(self, deltas: Sequence[Tensor], settings: Settings) -> Tensor:
        return disjoint_mean(deltas, settings["weight"], settings["normalize"])
