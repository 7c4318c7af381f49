"""Plots of values of pairs of inputs: means over all weights, and by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots.style import SCALE, Plot, color_range, label_layers, save
from mergekit_spectral.inspecting.summary import Array, mean_pairs, pairs_by_layer, short_names
from mergekit_spectral.inspecting.weights import SUBSPACE, Pairs, WeightReport

WIDTH = 10.5
"""Approximate width of the page, in inches."""
PAIR_VALUES: tuple[tuple[str, Callable[[WeightReport], Pairs], float, float], ...] = (
    ("cosine", lambda w: w.cosines, -1, 1),
    ("overlap, output side", lambda w: w.overlap_out, 0, 1),
    ("overlap, input side", lambda w: w.overlap_in, 0, 1),
    ("same sign, weights", lambda w: w.agreement, 0, 1),
    ("same sign, joint space", lambda w: w.joint_agreement, 0, 1),
)
"""(title, function that returns the values of pairs, smallest and largest possible value)."""


def draw_pairs(inspection: Inspection, folder: Path) -> Plot:
    """Draw a matrix for each of `PAIR_VALUES`, with the pairs' means over all weights."""
    names = short_names(inspection.inputs)
    side = max(2.2, 0.42 * len(names) + 1)
    figure, panels = _make_panels("Pairs of inputs, mean over all weights", side, side)
    for panel, (title, value, low, high) in zip(panels, PAIR_VALUES, strict=True):
        pairs = mean_pairs(inspection, value)
        panel.imshow(pairs, cmap="cividis", vmin=low, vmax=high)
        panel.set_title(title, fontsize=9)
        _label_pairs(panel, names, pairs, low, high)
    path = folder / "pairs.png"
    save(figure, path)
    return Plot(
        path,
        "Pairs of inputs",
        "Cosine: two updates add up (1), are orthogonal (0) or cancel (-1). Overlap: the share of "
        f"leading directions, at most {SUBSPACE}, that two inputs have in common, in the output "
        "space and in the input space. Same sign: the share of entries in which two updates have "
        "the same sign; by chance it is 0.5.",
    )


def _make_panels(title: str, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel of the given size, in inches, for each of `PAIR_VALUES`."""
    across = max(1, min(len(PAIR_VALUES), round(WIDTH / width)))
    down = -(-len(PAIR_VALUES) // across)
    figure = Figure(figsize=(across * width + 1, down * height + 1), layout="constrained")
    figure.suptitle(title)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for panel in panels[len(PAIR_VALUES) :]:
        panel.set_visible(False)
    return figure, panels[: len(PAIR_VALUES)]


def _label_pairs(panel: Axes, names: Sequence[str], pairs: Array, low: float, high: float) -> None:
    positions = range(len(names))
    panel.set_xticks(positions, names, rotation=45, ha="right", fontsize=8)
    panel.set_yticks(positions, names, fontsize=8)
    if len(names) <= 10:
        for i in positions:
            for j in positions:
                if np.isnan(pairs[i, j]):
                    continue
                dark = (pairs[i, j] - low) / (high - low) < 0.6
                color = "white" if dark else "black"
                text = f"{pairs[i, j]:.2f}"
                panel.text(j, i, text, ha="center", va="center", color=color, fontsize=7)


def draw_pairs_by_layer(inspection: Inspection, folder: Path) -> Plot | None:
    """Draw the values of pairs by layer; return None if no weight is in a layer."""
    found = [(title, pairs_by_layer(inspection, value)) for title, value, _, _ in PAIR_VALUES]
    cells = [(title, each) for title, each in found if each is not None]
    if not cells:
        return None
    columns = cells[0][1].columns
    side = max(2.2, 0.25 * len(columns) + 1.2)
    figure, panels = _make_panels("Pairs of inputs, by layer", side, 3.8)
    for panel, (title, own) in zip(panels, cells, strict=True):
        low, high = color_range(own.values)
        image = panel.imshow(
            own.values, aspect="auto", cmap=SCALE, vmin=low, vmax=high, interpolation="nearest"
        )
        panel.set_title(title, fontsize=9)
        panel.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
        label_layers(panel, own.layers)
        panel.set_ylabel("layer")
        figure.colorbar(image, ax=panel, shrink=0.6)
    path = folder / "pairs-by-layer.png"
    save(figure, path)
    by_input = columns == tuple(short_names(inspection.inputs))
    meaning = "Columns are inputs, with means over their pairs" if by_input else "Columns are pairs"
    return Plot(
        path,
        "Pairs of inputs by layer",
        f"{meaning}; values are means over the weights of a layer. In layers where signs agree "
        "more or subspaces overlap more than in others, the inputs learned similar changes.",
    )
