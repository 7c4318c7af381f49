"""DRM's steps: joint SVD, renormalized rows, pruning, election of signs and mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from operator import itemgetter

import torch
from torch import Tensor

from docs.pictures import steps
from docs.pictures.canvas import Canvas, Picture
from docs.pictures.examples import JointSpace, in_joint_space
from docs.pictures.steps import CELL, two_updates
from mergekit_spectral.methods.drm import kept_range
from mergekit_spectral.spectral import (
    DenseDelta,
    MergeFunction,
    RenormalizedCoordinates,
    TensorOutput,
    disjoint_mean,
    merge_entries,
)

DENSITY = 0.5


@dataclass(frozen=True)
class Steps:
    """What DRM computes of two updates.

    Attributes:
        updates: two matrices [out, in].
        space: the updates in their joint basis.
        lengths: of the rows of V_tᵀ, [k, 1] each.
        renormalized: V_tᵀ with rows of length 1, [k, in] each.
        pruned: the same without the smallest entries.
        scaled: the pruned rows multiplied by their singular values and lengths.
        merged: [k, in].
    """

    updates: list[Tensor]
    space: JointSpace
    lengths: list[Tensor]
    renormalized: list[Tensor]
    pruned: list[Tensor]
    scaled: list[Tensor]
    merged: Tensor

    @property
    def rows(self) -> list[Tensor]:
        """V_tᵀ, [k, in] each."""
        return [own / self.space.values[:, None] for own in self.space.coordinates]

    @property
    def outvoted(self) -> list[Tensor]:
        """Where an update has a sign that was not elected, [k, in] each."""
        return [own * self.merged < 0 for own in self.scaled]

    @property
    def result(self) -> Tensor:
        """The merged delta, [out, in]."""
        return self.space.joint.basis @ self.merged


@cache
def example() -> Steps:
    """Compute what is drawn."""
    updates = two_updates()
    space = in_joint_space(updates, 0.01)
    entries = RenormalizedCoordinates(space.joint, [DenseDelta(update) for update in updates])
    keep = kept_range(entries, [DENSITY] * 2)

    def after_pruning(merge: MergeFunction, votes: list[float] | None = None) -> Tensor:
        merged = torch.empty(entries.shape, dtype=torch.float64)
        merge_entries(entries, merge, TensorOutput(merged), keep, votes)
        return merged

    taken = entries.take(slice(0, entries.shape[0]))
    assert taken.units is not None
    pairs = list(zip(taken.values, taken.units, strict=True))
    scaled = [after_pruning(itemgetter(t)) for t in range(2)]
    return Steps(
        updates=updates,
        space=space,
        lengths=[units / space.values[:, None] for units in taken.units],
        renormalized=[values / units for values, units in pairs],
        pruned=[own / units for own, units in zip(scaled, taken.units, strict=True)],
        scaled=scaled,
        merged=after_pruning(partial(disjoint_mean, weights=[1.0, 1.0]), votes=[1.0, 1.0]),
    )


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    gone = [int((own == 0).sum()) for own in found.pruned]
    opposed = int((found.scaled[0] * found.scaled[1] < 0).sum())
    alt = (
        "DRM merges two updates, drawn as matrices from top to bottom. 1, decompose: both are "
        "written in a shared basis U with singular values s, and rows V1 and V2; some rows are "
        "pale. 2, renormalize: each row gets length 1, and no row is pale any more. 3, prune: "
        f"the smaller half of all entries is removed, {gone[0]} of update 1 and {gone[1]} of "
        "update 2. "
        f"4, elect and average: rows get their size back; in {opposed} places both updates are "
        "left with different signs, and the larger one wins. 5: U times the result is the merged "
        "update."
    )
    return Picture("drm", alt, HEIGHT, lambda canvas: _draw(canvas, found))


HEIGHT = 480.0


def _draw(canvas: Canvas, found: Steps) -> None:
    canvas.title(14, "DRM, step by step")
    canvas.signs(14)
    steps.heading(canvas, 46, "", "two updates\nof one weight")
    steps.pair(canvas, 38, found.updates, ("update 1", "update 2"))

    steps.heading(canvas, 116, "1  Decompose together", "All rows share the directions U.")
    steps.basis(canvas, 146, found.space, steps.BASIS - 12)
    steps.strengths(canvas, 146, found.space)
    steps.pair(canvas, 146, found.rows, ("V₁ᵀ", "V₂ᵀ"))

    steps.heading(canvas, 224, "2  Renormalize", "Each row gets length 1:\nweak rows count too.")
    steps.pair(canvas, 219, found.renormalized)

    steps.heading(canvas, 279, "3  Prune", "The larger half of all\nentries stays.")
    steps.pair(canvas, 274, found.pruned)

    steps.heading(
        canvas, 334, "4  Elect and average", "Rows get their size\nback. The heavier\nsign wins."
    )
    steps.pair(canvas, 329, found.scaled)
    for x, lost in zip(steps.LEFTS, found.outvoted, strict=True):
        canvas.crosses(x, 329, lost, CELL)

    steps.heading(canvas, 394, "5  Multiply by U")
    steps.product(canvas, 414, found.space, found.merged)
