"""What all plots of an inspection have in common."""

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

# Okabe and Ito's colours and viridis, which colour-blind readers tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP*X"
SCALE = "viridis"
LEAST_SPAN = 0.1
"""Of a heat map's colours, relative to its largest value."""


@dataclass(frozen=True)
class Plot:
    """A plot and what it shows.

    Attributes:
        path: of the file.
        title: a few words.
        text: what to see in it, in a sentence or two.
    """

    path: Path
    title: str
    text: str


def spread(values: Array) -> tuple[float, float]:
    """Return the ends of a heat map's colours."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # Values that hardly differ shall not look as if they did.
    slack = max(0.0, LEAST_SPAN * abs(high) - (high - low)) / 2
    return low - slack, high + slack


def label_layers(panel: Axes, layers: Sequence[int]) -> None:
    """Have the rows of a heat map be layers."""
    panel.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    panel.yaxis.set_major_formatter(
        lambda place, _: str(layers[int(place)]) if 0 <= place < len(layers) else ""
    )


def line_style(number: int) -> dict[str, str]:
    """Return the colour, marker and line of one input."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-" if number < len(COLORS) else "--",
    }


def legend_below(figure: Figure, panel: Axes) -> None:
    """Put the legend of a panel's lines under the figure, for all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))


def save(figure: Figure, path: Path) -> None:
    """Write a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"savefig.dpi": 130}):
        figure.savefig(path)
