"""Iso-C: the singular values of the sum are made more equal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from docs.pictures.examples import ADAPTERS, adapter_updates
from mergekit_spectral.methods.iso import flattened
from mergekit_spectral.spectral import above_tolerance, linear_combination, singular_triples

LAYER, WEIGHT = 20, "mlp.gate_proj"
FLATTEN, RANK_TOLERANCE = 0.75, 0.05


@dataclass(frozen=True)
class Spectrum:
    """The sum of three updates.

    Attributes:
        before: its k singular values.
        after: the same as Iso-C makes them.
        shares: what of each singular value is due to each input, [3, k]. The three add up to 1.
    """

    before: Tensor
    after: Tensor
    shares: Tensor


@cache
def example() -> Spectrum:
    """Compute what is drawn."""
    updates = adapter_updates(LAYER, WEIGHT)
    triples = singular_triples(
        linear_combination(updates, [1.0] * len(updates)), above_tolerance(RANK_TOLERANCE)
    )
    # s_i = Σ_t u_iᵀ·D_t·v_i
    parts = [(triples.U * (update.to_dense() @ triples.V)).sum(0) for update in updates]
    shares = torch.stack(parts) / triples.values
    return Spectrum(triples.values, flattened(triples.values, FLATTEN), shares)


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    alt = (
        f"Two bar charts of the {len(found.before)} directions of the sum of three adapters' "
        "updates, colored by the adapters they come from. Above, in the plain sum, the first "
        f"direction, to which all three contribute, is {_ratio(found.before):.0f} times as strong "
        "as the last one, which is mostly one adapter's. Below, with Iso-C, it is "
        f"{_ratio(found.after):.1f} times as strong."
    )
    return Picture("iso", alt, HEIGHT, lambda canvas: _draw(canvas, found))


def _ratio(values: Tensor) -> float:
    return float(values[0] / values[-1])


HEIGHT = 262.0
TALL = 84.0
STEP = (RIGHT - MARGIN) / 12


def _draw(canvas: Canvas, found: Spectrum) -> None:
    theme = canvas.theme
    canvas.title(14, "The sum: what all share drowns the rest")
    scale = TALL / float(found.before.max())
    _bars(canvas, 112, found.before * scale, found.shares)
    canvas.text(RIGHT, 50, f"strongest : weakest = {_ratio(found.before):.0f}", align="right")
    canvas.title(138, "Iso-C: same directions, more equal")
    _bars(canvas, 218, found.after * scale, found.shares)
    canvas.text(RIGHT, 158, f"strongest : weakest = {_ratio(found.after):.1f}", align="right")
    text = "Bars: directions of the sum of three real updates, by adapter:"
    canvas.text(MARGIN, 236, text, SMALL, theme.faded)
    x = MARGIN
    for name, color in zip(ADAPTERS, theme.inputs, strict=True):
        canvas.box(x, 245, 8, 8, color)
        canvas.text(x + 12, 249, name)
        x += 70


def _bars(canvas: Canvas, bottom: float, heights: Tensor, shares: Tensor) -> None:
    for number, height in enumerate(heights.tolist()):
        y = bottom
        for color, share in zip(canvas.theme.inputs, shares[:, number].tolist(), strict=True):
            y -= height * share
            canvas.box(
                MARGIN + number * STEP + 1.5, round(y, 1), STEP - 3, round(height * share, 1), color
            )
    canvas.line([(MARGIN, bottom), (RIGHT, bottom)], canvas.theme.faded)
