"""Why updates that are merged entry by entry conflict, and why they need not in the joint space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from docs.pictures.examples import JointSpace, in_joint_space, merge, orthonormal, random

CELL = 8.2
ROWS, COLUMNS = 6, 9


@dataclass(frozen=True)
class Conflict:
    """Two updates, in weights and in the joint space.

    Attributes:
        updates: two matrices [out, in]. Both act in a first direction, and each in one of its own.
        space: the updates in the basis that they share.
        kept: what `ties` and `knots_ties` keep of each update's own direction, as shares.
    """

    updates: list[Tensor]
    space: JointSpace
    kept: dict[str, list[float]]

    @property
    def weights(self) -> Tensor:
        """Where the updates have different signs, [out, in]."""
        return self.updates[0] * self.updates[1] < 0

    @property
    def coordinates(self) -> Tensor:
        """Where the updates' coordinates have different signs, [3, in]."""
        return self.space.coordinates[0] * self.space.coordinates[1] < 0


@cache
def example() -> Conflict:
    """Compute what is drawn."""
    shared, *own = orthonormal(random(3, ROWS, 3)).T
    reads = random(5, COLUMNS)
    updates, parts = [], []
    for number, direction in enumerate(own):
        # Both read nearly the same from the shared direction, with equal signs.
        common = reads * (1 + 0.4 * random(number + 7, COLUMNS).tanh())
        read, unlike = orthonormal(torch.stack([common, random(number + 11, COLUMNS)], 1)).T
        parts.append((1.1 - 0.2 * number) * torch.outer(direction, unlike))
        updates.append(torch.outer(shared, read) + parts[-1])
    kept = {
        method: [float((merged * part).sum() / part.square().sum()) for part in parts]
        for method in ("ties", "knots_ties")
        for merged in (merge(method, updates, density=1.0),)
    }
    return Conflict(updates, in_joint_space(updates, 1e-5), kept)


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    places = found.weights.numel()
    conflicts, ties, knots = int(found.weights.sum()), found.kept["ties"], found.kept["knots_ties"]
    alt = (
        "Two small updates drawn as matrices, positive entries orange and negative entries blue. "
        f"In weights, their signs differ at {conflicts} of {places} places. In the joint space, "
        "the shared direction is one row in which they agree, and each update's own direction is "
        "a row that is empty in the other, so no signs differ. Bars below: of the updates' own "
        f"directions, ties keeps {ties[0]:.0%} and {ties[1]:.0%}, knots_ties {knots[0]:.0%} and "
        f"{knots[1]:.0%}."
    )
    return Picture("conflict", alt, HEIGHT, lambda canvas: _draw(canvas, found))


HEIGHT = 288.0
LEFTS = tuple(MARGIN + 32 + number * (COLUMNS * CELL + 7.3) for number in range(3))
BAR, PERCENT = 74.0, 30.0


def _draw(canvas: Canvas, found: Conflict) -> None:
    faded = canvas.theme.faded
    canvas.title(14, "Entry by entry, two updates collide")
    canvas.signs(14)
    _compared(canvas, 31, found.updates, found.weights)
    canvas.text(LEFTS[0] - 5, 38 + ROWS * CELL / 2, "weights", SMALL, faded, "right")
    canvas.text(LEFTS[0], 38 + ROWS * CELL + 9, "Where signs differ, ties drops one side.", SMALL)

    canvas.title(123, "In the joint space, each direction has a row")
    _compared(canvas, 140, found.space.coordinates, found.coordinates)
    for row, label in enumerate(("shared", "1 only", "2 only")):
        canvas.text(LEFTS[0] - 5, 147 + (row + 0.5) * CELL, label, SMALL, faded, "right")
    canvas.text(LEFTS[0], 147 + 3 * CELL + 9, "Nothing has to be dropped.", SMALL)

    canvas.title(206, "What is kept of each update's own direction")
    y, full = 223.0, RIGHT - PERCENT - BAR
    for method, shares in found.kept.items():
        canvas.text(BAR - 18, y, method, align="right")
        color = faded if method == "ties" else canvas.theme.accent
        for number, share in enumerate(shares, 1):
            canvas.text(BAR - 6, y, f"{number}", SMALL, faded, "right")
            canvas.box(BAR, y - 5, full, 10, canvas.theme.cell)
            canvas.box(BAR, y - 5, full * share, 10, color)
            canvas.text(RIGHT, y, f"{share:.0%}", align="right", bold=True)
            y += 13
        y += 4


def _compared(canvas: Canvas, y: float, matrices: list[Tensor], differ: Tensor) -> None:
    """Draw two matrices, and where their signs differ, below their names."""
    for x, name in zip(LEFTS, ("update 1", "update 2", "signs differ"), strict=True):
        canvas.text(x + COLUMNS * CELL / 2, y, name, SMALL, canvas.theme.faded, "center")
    largest = max(float(matrix.abs().max()) for matrix in matrices)
    for x, matrix in zip(LEFTS, matrices, strict=False):
        canvas.matrix(x, y + 7, matrix, CELL, largest)
    canvas.marks(LEFTS[2], y + 7, differ, CELL, canvas.theme.ink)
    count = f"{int(differ.sum())} of {differ.numel()}"
    canvas.text(RIGHT, y + 16 + len(differ) * CELL, count, SMALL, align="right", bold=True)
