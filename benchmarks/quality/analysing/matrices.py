"""The papers' analyses of single weights: pruned rows, agreement in sign, effective ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.analysing.sign_agreement import SignAgreement, sign_agreement
from benchmarks.quality.training.settings import Kind
from mergekit_spectral.inspecting.measures import effective_rank
from mergekit_spectral.inspecting.pruned_rows import PrunedRows, kept_places, pruned_shares
from mergekit_spectral.methods.knots import trimmed
from mergekit_spectral.spectral import (
    Delta,
    RenormalizedCoordinates,
    UnnormalizedCoordinates,
    above_tolerance,
    joint_decomposition,
)

RANK_TOLERANCE = 0.01
PRUNED_TO = 0.5
"""The density of the paper's Figure 3."""
AGREEMENT_AT = 0.2
"""The density at which signs are compared, the methods' own."""

WEIGHTS = "weights"
PRUNED_WEIGHTS = "weights, pruned"
JOINT = "joint space"
PRUNED_JOINT = "joint space, pruned"
PROJECTED = "pruned in joint space, back in weights"
SPACES = (WEIGHTS, PRUNED_WEIGHTS, JOINT, PRUNED_JOINT, PROJECTED)


@dataclass(frozen=True)
class MatrixAnalysis:
    """What is known of one weight in the fine-tunes of one kind.

    Attributes:
        kind: of the fine-tunes.
        weight: its name in the model.
        inputs: how many fine-tunes.
        directions: k, of the joint space.
        renormalized: what DRM's pruning to `PRUNED_TO` takes of the rows of the Ṽ_tᵀ.
        unrenormalized: what it would take of those of the V_tᵀ.
        agreement: in each of `SPACES`, pruned to `AGREEMENT_AT` where they are pruned.
        effective_ranks: of each input's update.
        joint_effective_rank: of all updates side by side.
    """

    kind: Kind
    weight: str
    inputs: int
    directions: int
    renormalized: PrunedRows
    unrenormalized: PrunedRows
    agreement: dict[str, SignAgreement]
    effective_ranks: tuple[float, ...]
    joint_effective_rank: float


def analyse_matrix(kind: Kind, weight: str, deltas: Sequence[Delta]) -> MatrixAnalysis:
    """Analyse one weight.

    Args:
        kind: of the fine-tunes.
        weight: its name.
        deltas: of two inputs or more, [out, in], not all zero.
    """
    joint = joint_decomposition(deltas, above_tolerance(RANK_TOLERANCE))
    renormalized = RenormalizedCoordinates(joint, deltas)
    dense = [delta.to_dense() for delta in deltas]
    coordinates = renormalized.take(slice(None)).values
    kept = kept_places(renormalized, AGREEMENT_AT)
    pruned = [torch.where(own, values, 0) for own, values in zip(kept, coordinates, strict=True)]
    spaces = {
        WEIGHTS: dense,
        PRUNED_WEIGHTS: [trimmed_alone(delta, AGREEMENT_AT) for delta in dense],
        JOINT: coordinates,
        PRUNED_JOINT: pruned,
        PROJECTED: [joint.basis @ values for values in pruned],
    }
    return MatrixAnalysis(
        kind=kind,
        weight=weight,
        inputs=len(deltas),
        directions=joint.basis.shape[1],
        renormalized=PrunedRows.of(pruned_shares(renormalized, PRUNED_TO)),
        unrenormalized=PrunedRows.of(
            pruned_shares(UnnormalizedCoordinates(joint, deltas), PRUNED_TO)
        ),
        agreement={space: sign_agreement(values) for space, values in spaces.items()},
        effective_ranks=tuple(round(effective_rank(_spectrum([delta])), 2) for delta in deltas),
        joint_effective_rank=round(effective_rank(joint.spectrum), 2),
    )


def trimmed_alone(values: Tensor, density: float) -> Tensor:
    """Return one input's entries as TIES trims them."""
    ranks = trimmed(values.numel(), density)
    magnitudes = values.abs()
    threshold = magnitudes.flatten().kthvalue(ranks.first).values if ranks.first else 0
    return torch.where(magnitudes >= threshold, values, 0)


def _spectrum(deltas: Sequence[Delta]) -> Tensor:
    """Return the singular values of deltas side by side, in float64, descending."""
    # All of them come without any of the vectors.
    return joint_decomposition(deltas, lambda _: 1).spectrum
