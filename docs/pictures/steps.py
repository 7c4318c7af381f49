"""Two small updates, and how the steps of DRM and KnOTS draw them: one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, TITLE, Canvas
from docs.pictures.examples import JointSpace, orthonormal, random

CELL = 9.4
ROWS, COLUMNS = 6, 8
RANK = 4
SHARES = ((0.95, 0.22, 0.8, 0.25), (0.3, 0.97, 0.6, 0.97))
"""About how much of each direction's length the updates are made to have."""
WIDTH, HEIGHT = COLUMNS * CELL, ROWS * CELL
LEFTS = (RIGHT - 2 * WIDTH - 10, RIGHT - WIDTH)
"""The left ends of what belongs to the two updates."""
BASIS = LEFTS[0] - 16 - RANK * CELL
"""The left end of U."""
BARS = 20.0
"""Length of the bar of the largest singular value."""


@cache
def two_updates() -> list[Tensor]:
    """Return two updates of rank 4, each weak in some directions of the other, [out, in] each."""
    U = orthonormal(random(21, ROWS, RANK))
    sizes = torch.tensor([3.0, 2.5, 2.0, 1.6], dtype=torch.float64)
    rows = [random(number + 51, RANK, COLUMNS) for number in range(2)]
    return [
        (U * sizes * torch.tensor(share, dtype=torch.float64)) @ (own / own.norm(dim=1)[:, None])
        for share, own in zip(SHARES, rows, strict=True)
    ]


def heading(canvas: Canvas, y: float, title: str, text: str = "") -> None:
    """Name a step, and say below what happens."""
    canvas.title(y, title)
    canvas.text(MARGIN, y + 1.35 * TITLE, text, SMALL, canvas.theme.faded)


def pair(canvas: Canvas, y: float, matrices: Sequence[Tensor], names: Sequence[str] = ()) -> None:
    """Draw a matrix of each update beside the other, in colors of one scale."""
    largest = max(float(matrix.abs().max()) for matrix in matrices)
    for x, matrix in zip(LEFTS, matrices, strict=True):
        canvas.matrix(x, y, matrix, CELL, largest)
    for x, name in zip(LEFTS, names, strict=False):
        _name(canvas, x + WIDTH / 2, y, name)


def basis(canvas: Canvas, y: float, space: JointSpace, x: float = BASIS) -> None:
    """Draw U at the left of the updates' rows."""
    canvas.matrix(x, y, space.joint.basis, CELL)
    _name(canvas, x + RANK * CELL / 2, y, "U")


def strengths(canvas: Canvas, y: float, space: JointSpace) -> None:
    """Draw the singular values as bars, between U and the updates' rows."""
    _name(canvas, LEFTS[0] - BARS / 2 - 4, y, "s")
    for row, share in enumerate((space.values / space.values[0]).tolist()):
        x, top = LEFTS[0] - BARS - 4, y + (row + 0.2) * CELL
        canvas.box(x, top, round(BARS * share, 1), 0.6 * CELL, canvas.theme.faded)


def product(canvas: Canvas, y: float, space: JointSpace, merged: Tensor) -> None:
    """Draw the multiplication of merged rows by U."""
    basis(canvas, y, space)
    middle = y + RANK * CELL / 2
    canvas.text(LEFTS[0] - 8, middle, "×", TITLE, align="center")
    canvas.matrix(LEFTS[0], y, merged, CELL)
    _name(canvas, LEFTS[0] + WIDTH / 2, y, "merged rows")
    canvas.text(LEFTS[1] - 5, middle, "=", TITLE, align="center")
    canvas.matrix(LEFTS[1], y, space.joint.basis @ merged, CELL)
    _name(canvas, LEFTS[1] + WIDTH / 2, y, "merged update")


def _name(canvas: Canvas, x: float, y: float, name: str) -> None:
    canvas.text(x, y - 7, name, SMALL, canvas.theme.faded, "center")
