"""Plots of values of pairs of inputs: means over all weights, and by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import Array, mean_pairs, pairs_by_layer
from mergekit_spectral.inspecting.weights import SUBSPACE, Pairs, WeightReport
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.plots import (
    ON_COLOR,
    SCALE,
    WIDTH,
    Plot,
    color_range,
    finish_plot,
    label_layers,
    new_figure,
    numbers_below,
)

PAIR_VALUES: tuple[tuple[str, Callable[[WeightReport], Pairs], float, float], ...] = (
    ("cosine", lambda w: w.cosines, -1, 1),
    ("overlap, output side", lambda w: w.overlap_out, 0, 1),
    ("overlap, input side", lambda w: w.overlap_in, 0, 1),
    ("same sign, weights", lambda w: w.agreement, 0, 1),
    ("same sign, joint space", lambda w: w.joint_agreement, 0, 1),
)
"""(title, function that returns the values of pairs, smallest and largest possible value)."""


def draw_pairs(inspection: Inspection) -> Plot:
    """Draw a matrix for each of `PAIR_VALUES`, with the pairs' means over all weights."""
    names = short_names(inspection.inputs)
    side = max(1.7, 0.34 * len(names) + 0.5)
    figure, panels = _make_panels(names, side, side)
    for panel, (title, value, low, high) in zip(panels, PAIR_VALUES, strict=True):
        pairs = mean_pairs(inspection, value)
        panel.imshow(pairs, cmap="cividis", vmin=low, vmax=high)
        panel.set_title(title)
        _label_pairs(panel, pairs, low, high)
    numbers_below(figure, names)
    return finish_plot(
        figure,
        "pairs",
        "Pairs of inputs, mean over all weights",
        "Cosine: two updates add up (1), are orthogonal (0) or cancel (-1). Overlap: the share of "
        f"leading directions, at most {SUBSPACE}, that two inputs have in common, in the output "
        "space and in the input space. Same sign: the share of entries in which two updates have "
        "the same sign; by chance it is 0.5.",
    )


def _make_panels(names: Sequence[str], width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel of the given size, in inches, for each of `PAIR_VALUES`.

    The figure has room for a legend of the names.
    """
    across = max(1, int(WIDTH / width))
    down = -(-len(PAIR_VALUES) // across)
    figure = new_figure(down * height + 0.2, names)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for panel in panels[len(PAIR_VALUES) :]:
        panel.set_visible(False)
    return figure, panels[: len(PAIR_VALUES)]


def _label_pairs(panel: Axes, pairs: Array, low: float, high: float) -> None:
    positions = range(len(pairs))
    numbers = [str(position + 1) for position in positions]
    panel.set_xticks(positions, numbers)
    panel.set_yticks(positions, numbers)
    if len(pairs) <= 10:
        for i in positions:
            for j in positions:
                if np.isnan(pairs[i, j]):
                    continue
                dark = (pairs[i, j] - low) / (high - low) < 0.6
                style: dict[str, Any] = {
                    "ha": "center",
                    "va": "center",
                    "color": "white" if dark else "black",
                }
                value = f"{round(float(pairs[i, j]), 2) + 0.0:.2f}"
                panel.text(j, i, value, fontsize=6.5, gid=ON_COLOR, **style)


def draw_pairs_by_layer(inspection: Inspection) -> Plot | None:
    """Draw the values of pairs by layer; return None if no weight is in a layer."""
    found = [(title, pairs_by_layer(inspection, value)) for title, value, _, _ in PAIR_VALUES]
    cells = [(title, each) for title, each in found if each is not None]
    if not cells:
        return None
    names = short_names(inspection.inputs)
    columns = cells[0][1].columns
    by_input = columns == tuple(names)
    pairs = combinations(range(1, len(names) + 1), 2)
    labels = range(1, len(names) + 1) if by_input else [f"{i}, {j}" for i, j in pairs]
    figure, panels = _make_panels(names, max(1.9, 0.3 * len(columns) + 0.9), 2.6)
    for panel, (title, own) in zip(panels, cells, strict=True):
        low, high = color_range(own.values)
        image = panel.imshow(
            own.values, aspect="auto", cmap=SCALE, vmin=low, vmax=high, interpolation="nearest"
        )
        panel.set_title(title)
        panel.set_xticks(range(len(columns)), list(map(str, labels)))
        label_layers(panel, own.layers)
        panel.set_ylabel("layer")
        figure.colorbar(image, ax=panel, shrink=0.8)
    numbers_below(figure, names)
    meaning = "Columns are inputs, with means over their pairs" if by_input else "Columns are pairs"
    return finish_plot(
        figure,
        "pairs-by-layer",
        "Pairs of inputs by layer",
        f"{meaning}; values are means over the weights of a layer. In layers where signs agree "
        "more or subspaces overlap more than in others, the inputs learned similar changes.",
    )
