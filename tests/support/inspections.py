"""Inspections of updates that a test makes, without files."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.weights import inspect_weight
from mergekit_spectral.spectral import Delta, DenseDelta, FactoredDelta

SHAPE = (40, 56)


def inspection(
    *weights: Sequence[Delta], lora: bool = False, base_norm: float = 100.0
) -> Inspection:
    """Inspect weights, each given as the inputs' updates; the inputs are input-a, input-b, …"""
    count = len(weights[0])
    found = (
        inspect_weight(f"model.layers.{number}.mlp.up_proj.weight", deltas, base_norm)
        for number, deltas in enumerate(weights)
    )
    inputs = tuple(f"lab/input-{name}" for name in "abcdefgh"[:count])
    return Inspection(
        recipe="recipe.yml",
        method="drm",
        base="lab/base",
        inputs=inputs,
        lora=lora,
        weights=tuple(weight for weight in found if weight),
        others=(),
        unchanged=("model.norm.weight",),
        left_out=(),
    )


def dense(*matrices: Tensor) -> list[Delta]:
    return [DenseDelta(matrix.float()) for matrix in matrices]


def low_rank(*pairs: tuple[Tensor, Tensor]) -> list[Delta]:
    return [FactoredDelta(B.float(), A.float()) for B, A in pairs]
