"""ACTMat: in each direction, the merged update does what the updates that are strong there do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from docs.pictures.examples import merge, orthonormal, random

SIZES = torch.tensor([[3.0, 0.0, 2.0, 3.0], [0.0, 2.5, 2.0, 1.0]], dtype=torch.float64)
"""How strong each of two updates is in four directions."""
KINDS = ("only 1", "only 2", "both", "mostly 1")


@dataclass(frozen=True)
class Fit:
    """Two updates and three merges, by their strength in each of four directions.

    Attributes:
        left: the directions' left vectors, [out, 4].
        right: their right vectors, [in, 4].
        updates: two matrices [out, in].
        merged: by method, [4].
    """

    left: Tensor
    right: Tensor
    updates: list[Tensor]
    merged: dict[str, Tensor]


@cache
def example() -> Fit:
    """Compute what is drawn."""
    left, right = orthonormal(random(41, 6, 4)), orthonormal(random(42, 6, 4))
    updates = [(left * sizes) @ right.T for sizes in SIZES]
    merges = {
        "mean": merge("task_arithmetic", updates, normalize=True),
        "sum": merge("task_arithmetic", updates, normalize=False),
        "actmat": merge("actmat", updates),
    }
    strengths = {name: (left.T @ merged @ right).diagonal() for name, merged in merges.items()}
    return Fit(left, right, updates, strengths)


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    numbers = {
        name: ", ".join(f"{value:.3g}" for value in own.tolist())
        for name, own in found.merged.items()
    }
    alt = (
        "Bars for four directions of two made-up updates. Only update 1 is strong in the first "
        "(3), only update 2 in the second (2.5), both in the third (2 each), mostly update 1 in "
        f"the fourth (3 and 1). The mean of the updates has {numbers['mean']} there, the sum "
        f"{numbers['sum']}, and ACTMat {numbers['actmat']}: what one update has is kept, and what "
        "both have is not doubled."
    )
    return Picture("actmat", alt, HEIGHT, lambda canvas: _draw(canvas, found))


HEIGHT = 292.0
LEFT = 96.0
STEP = (RIGHT - LEFT) / 4
UNIT = 13.0
ROWS = (
    (138.0, "mean", "Mean", "halves what only\none update has"),
    (216.0, "sum", "Sum", "doubles what\nboth have"),
    (281.0, "actmat", "ACTMat", "fits each update\nwhere it is strong"),
)


def _draw(canvas: Canvas, found: Fit) -> None:
    theme = canvas.theme
    canvas.title(14, "ACTMat: what each update does, where it is strong")
    for number, kind in enumerate(KINDS):
        canvas.text(LEFT + (number + 0.5) * STEP, 31, kind, SMALL, theme.faded, "center")
    bottom = 84.0
    canvas.text(MARGIN, bottom - 26, "Two updates", bold=True)
    for number, color in enumerate(theme.inputs[:2]):
        canvas.box(MARGIN, bottom - 14 + 11 * number - 3.5, 7, 7, color)
        canvas.text(MARGIN + 11, bottom - 14 + 11 * number, f"update {number + 1}", SMALL)
        for direction, size in enumerate(SIZES[number].tolist()):
            x = LEFT + direction * STEP + STEP / 2 + (number - 1) * 12 + 0.5
            if size:
                canvas.box(x, bottom - UNIT * size, 11, UNIT * size, color)
    _ground(canvas, bottom)
    for bottom, method, title, text in ROWS:
        canvas.text(MARGIN, bottom - 28, title, bold=True)
        canvas.text(MARGIN, bottom - 15, text, SMALL, theme.faded)
        color = theme.accent if method == "actmat" else theme.faded
        for direction, value in enumerate(found.merged[method].tolist()):
            middle = LEFT + (direction + 0.5) * STEP
            size = UNIT * value
            canvas.box(middle - 11.5, round(bottom - size, 1), 23, round(size, 1), color)
            canvas.text(middle, bottom - size - 6, f"{value:.3g}", SMALL, align="center")
        _ground(canvas, bottom)


def _ground(canvas: Canvas, y: float) -> None:
    canvas.line([(LEFT, y), (RIGHT, y)], canvas.theme.faded)
