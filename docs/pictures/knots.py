"""KnOTS: updates are written in a shared basis, merged there as usual, and multiplied out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from torch import Tensor

from docs.pictures import steps
from docs.pictures.canvas import TEXT, Canvas, Picture
from docs.pictures.examples import JointSpace, in_joint_space, merge
from docs.pictures.steps import CELL, LEFTS, RANK, WIDTH


@dataclass(frozen=True)
class Aligned:
    """What KnOTS computes of two updates.

    Attributes:
        updates: two matrices [out, in].
        space: the updates in their joint basis.
        merged: their coordinates as `ties` merges them, [k, in].
    """

    updates: list[Tensor]
    space: JointSpace
    merged: Tensor

    @property
    def result(self) -> Tensor:
        """The merged delta, [out, in]."""
        return self.space.joint.basis @ self.merged


@cache
def example() -> Aligned:
    """Compute what is drawn."""
    updates = steps.two_updates()
    space = in_joint_space(updates, 1e-5)
    return Aligned(updates, space, merge("ties", space.coordinates, density=1.0))


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    alt = (
        "KnOTS merges two updates, drawn as matrices from top to bottom. 1, decompose together: "
        "both are written as rows in a shared basis U, strong directions above weak ones. 2, "
        "merge: a method of mergekit, such as ties, merges the two sets of rows into one. 3: U "
        "times the merged rows is the merged update."
    )
    return Picture("knots", alt, HEIGHT, lambda canvas: _draw(canvas, found))


HEIGHT = 346.0


def _draw(canvas: Canvas, found: Aligned) -> None:
    accent = canvas.theme.accent
    canvas.title(14, "KnOTS, step by step")
    canvas.signs(14)
    steps.heading(canvas, 46, "", "two updates\nof one weight")
    steps.pair(canvas, 38, found.updates, ("update 1", "update 2"))

    steps.heading(canvas, 116, "1  Decompose together", "All rows share the directions U.")
    steps.basis(canvas, 146, found.space)
    steps.pair(canvas, 146, found.space.coordinates, ("rows of update 1", "rows of update 2"))

    steps.heading(canvas, 222, "2  Merge the rows", "by mergekit's own ties,\ndare_ties, della, …")
    left, right = (x + WIDTH / 2 for x in LEFTS)
    top, bottom = 150 + RANK * CELL, 222
    for x in (left, right):
        canvas.line([(x, top), (x, bottom)], accent, 1.2)
    canvas.line([(right, bottom), (left, bottom)], accent, 1.2)
    canvas.arrow((left, bottom), (left, 264), accent)
    middle = (left + right) / 2
    canvas.box(middle - 22, bottom - 9, 44, 18, accent)
    canvas.text(middle, bottom, "ties", TEXT, canvas.theme.page, "center", bold=True)

    steps.heading(canvas, 259, "3  Multiply by U")
    steps.product(canvas, 280, found.space, found.merged)
