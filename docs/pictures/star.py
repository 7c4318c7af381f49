"""STAR: each update is cut to its leading directions, and they take over the size of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from docs.pictures.examples import ADAPTERS, adapter_updates
from mergekit_spectral.spectral import above_tolerance, kept_rank, singular_triples, truncate

ETA = 40.0
LAYER, WEIGHT = 6, "mlp.up_proj"


@dataclass(frozen=True)
class Truncation:
    """The singular values of one update.

    Attributes:
        before: of the update.
        after: those that STAR keeps, rescaled.
    """

    before: list[float]
    after: list[float]


@cache
def example() -> list[Truncation]:
    """Compute what is drawn, for each adapter."""
    found = []
    for update in adapter_updates(LAYER, WEIGHT):
        before, after = (
            singular_triples(delta, above_tolerance(1e-6)).values
            for delta in (update, truncate(update, ETA))
        )
        assert len(after) == kept_rank(before, ETA)
        found.append(Truncation(before.tolist(), after.tolist()))
    return found


def picture() -> Picture:
    """Return the drawing."""
    found = example()
    kept = ", ".join(
        f"{len(own.after)} of {len(own.before)} for {name}"
        for name, own in zip(ADAPTERS, found, strict=True)
    )
    alt = (
        "Three adapters, each with two bars of equal length that are the sum of its singular "
        f"values. In the upper bar, four segments; a line marks {ETA:.0f}% of the length. The "
        f"segments that reach the line are kept ({kept}) and the others are gray. In the lower "
        "bar, the kept segments are stretched to the whole length."
    )
    return Picture("star", alt, HEIGHT, lambda canvas: _draw(canvas, found))


HEIGHT = 270.0
LEFT, LENGTH = 72.0, RIGHT - 72
BAR = 15.0


def _draw(canvas: Canvas, found: list[Truncation]) -> None:
    theme = canvas.theme
    canvas.title(14, "STAR: fewer directions, same size")
    text = "Real adapters. A bar is the sum of an update's singular values."
    canvas.text(MARGIN, 27, text, SMALL, theme.faded)
    scale = LENGTH / max(sum(own.before) for own in found)
    y = 48.0
    for name, color, own in zip(ADAPTERS, theme.inputs, found, strict=True):
        kept = len(own.after)
        canvas.text(MARGIN, y + BAR - 5, name)
        counts = f"{len(own.before)} → {kept}"
        canvas.text(MARGIN, y + BAR + 7, counts, SMALL, theme.faded)
        colors = [color] * kept + [theme.cell] * (len(own.before) - kept)
        _bar(canvas, y, [value * scale for value in own.before], colors)
        _bar(canvas, y + BAR + 4, [value * scale for value in own.after], [color] * kept)
        limit = LEFT + scale * sum(own.before) * ETA / 100
        canvas.line([(limit, y - 4), (limit, y + BAR + 1)], theme.ink, 1.1)
        if name == ADAPTERS[0]:
            canvas.text(limit, y - 9, f"{ETA:.0f}%", SMALL, theme.ink, "center")
        y += 2 * BAR + 24
    y += 2
    for number, text in enumerate(
        (
            f"Cut: keep the leading directions, to {ETA:.0f}% of the sum.",
            "Rescale: stretch them to the whole sum.",
            "Average the three updates.",
        ),
        1,
    ):
        canvas.text(MARGIN, y, f"{number}", bold=True)
        canvas.text(MARGIN + 14, y, text)
        y += 15


def _bar(canvas: Canvas, y: float, lengths: list[float], colors: list[str]) -> None:
    x = LEFT
    for length, color in zip(lengths, colors, strict=True):
        canvas.box(round(x, 1), y, round(length - 1.2, 1), BAR, color)
        x += length
