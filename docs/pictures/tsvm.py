"""TSV-M: the directions of all inputs are made orthogonal, and turned as little as possible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from docs.pictures.examples import ADAPTERS, adapter_updates
from mergekit_spectral.spectral import above_tolerance, nearest_orthonormal, singular_triples

LAYER, WEIGHT = 11, "mlp.up_proj"
RANK_TOLERANCE = 0.05


@dataclass(frozen=True)
class Turned:
    """The right singular vectors of three updates, and what TSV-M makes of them.

    Attributes:
        before: the vectors, [in, 4] each.
        after: all of them, as the nearest orthonormal columns, [in, 12].
        two: the first vectors of two updates in the plane that they span, [2, 2].
        two_after: the nearest orthonormal columns to those two.
    """

    before: list[Tensor]
    after: Tensor
    two: Tensor
    two_after: Tensor

    @property
    def angle(self) -> float:
        """The angle between the two vectors, in degrees."""
        return math.degrees(math.acos(float(self.two[:, 0] @ self.two[:, 1])))


@cache
def example() -> Turned:
    """Compute what is drawn."""
    above = above_tolerance(RANK_TOLERANCE)
    before = [singular_triples(update, above).V for update in adapter_updates(LAYER, WEIGHT)]
    first, second = before[0][:, 0], before[1][:, 0]
    # The sign of a singular vector is arbitrary.
    second = second * torch.sign(first @ second)
    cosine = float(first @ second)
    middle, half = math.radians(45), math.acos(cosine) / 2
    angles = torch.tensor([middle - half, middle + half], dtype=torch.float64)
    two = torch.stack([angles.cos(), angles.sin()])
    columns = [two[:, :1], two[:, 1:]]
    return Turned(before, nearest_orthonormal(before), two, nearest_orthonormal(columns))


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    count = found.after.shape[1]
    alt = (
        f"Above, two arrows: the first directions of two adapters, {found.angle:.0f} degrees "
        "apart; after TSV-M they are 90 degrees apart, each turned by the same angle. Below, the "
        f"overlaps of all {count} directions of three adapters, as matrices of {count} by {count}: "
        "before, there are blocks of overlaps between different adapters; after, only the "
        "diagonal is left."
    )
    return Picture("tsvm", alt, HEIGHT, lambda canvas: _draw(canvas, found))


HEIGHT = 292.0
CELL = 8.6
LENGTH = 66.0
SIDE = 12 * CELL
LEFTS = (MARGIN + 12, RIGHT - SIDE)
ARROW_LEFT = (LEFTS[0] + SIDE + LEFTS[1] - 7) / 2 - 10


def _draw(canvas: Canvas, found: Turned) -> None:
    theme = canvas.theme
    canvas.title(14, "TSV-M: directions are turned apart")
    for x, vectors, angle in zip(
        LEFTS, (found.two, found.two_after), (found.angle, 90.0), strict=True
    ):
        origin = x + 18, 108.0
        for number in range(2):
            color = theme.inputs[number]
            dx, dy = (LENGTH * vectors[:, number]).tolist()
            end = origin[0] + dx, origin[1] - dy
            canvas.arrow(origin, end, color, 2.2, 11)
            name = ADAPTERS[number]
            if number:
                canvas.text(end[0] + 2, end[1] - 8, name, SMALL, align="center")
            else:
                canvas.text(end[0] + 1, end[1] + 11, name, SMALL, align="center")
        canvas.text(origin[0] + 18, origin[1] - 17, f"{angle:.0f}°", align="center", bold=True)
    canvas.arrow((ARROW_LEFT, 76), (ARROW_LEFT + 20, 76), theme.ink)

    canvas.title(142, "All directions of three adapters: who overlaps?")
    top = 160.0
    before = torch.cat(found.before, dim=1)
    for x, vectors in zip(LEFTS, (before, found.after), strict=True):
        canvas.matrix(x, top, (vectors.T @ vectors).abs().clamp(max=1.0), CELL, 1.0)
        start = 0.0
        for color, own in zip(theme.inputs, found.before, strict=True):
            length = own.shape[1] * CELL
            canvas.box(x + start + 1, top - 5, length - 2, 3, color)
            canvas.box(x - 5, top + start + 1, 3, length - 2, color)
            start += length
    canvas.arrow((ARROW_LEFT, top + SIDE / 2), (ARROW_LEFT + 20, top + SIDE / 2), theme.ink)
    x = MARGIN
    for name, color in zip(ADAPTERS, theme.inputs, strict=True):
        canvas.box(x, 276, 8, 8, color)
        canvas.text(x + 12, 280, name)
        x += 70
