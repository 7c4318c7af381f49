"""Colors, labels and files that all plots of an inspection share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mergekit_spectral.inspecting.summary import Array

# Readers with color blindness can distinguish Okabe and Ito's colors, and those of viridis.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP*X"
SCALE = "viridis"
LEAST_SPAN = 0.1
"""Smallest range of values that a heat map's colors cover, relative to its largest value."""


@dataclass(frozen=True)
class Plot:
    """A plot and its description.

    Attributes:
        path: path of the PNG file.
        title: title of the plot.
        text: what the plot shows and how to read it, in a few sentences.
    """

    path: Path
    title: str
    text: str


def color_range(values: Array) -> tuple[float, float]:
    """Return the values of a heat map's first and last color."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # A minimum range, so that nearly equal values get nearly equal colors.
    slack = max(0.0, LEAST_SPAN * abs(high) - (high - low)) / 2
    return low - slack, high + slack


def label_layers(panel: Axes, layers: Sequence[int]) -> None:
    """Label the rows of a heat map with the numbers of the layers."""
    panel.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.yaxis.set_major_formatter(
        lambda row, _: str(layers[int(row)]) if 0 <= row < len(layers) else ""
    )


def line_style(number: int) -> dict[str, str]:
    """Return the color, marker and line style of an input, by its index."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-" if number < len(COLORS) else "--",
    }


def legend_below(figure: Figure, panel: Axes) -> None:
    """Draw one legend for all panels below the figure, with the labels of `panel`."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"savefig.dpi": 130}):
        figure.savefig(path)
