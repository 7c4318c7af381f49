"""Colors, labels and images that all plots share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Readers with color blindness can distinguish Okabe and Ito's colors, and those of viridis.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP*X"
SCALE = "viridis"
WIDTH = 4.0
"""Width of all figures in inches, which is that of a phone."""
DPI = 170
LINE = 50
"""Number of characters that fit on a line of this width in the smallest font."""
DARK, LIGHT = "#15181c", "#e4e4e4"
"""Background and text of the dark version; the page has the same background."""
ON_COLOR = "on-color"
"""`gid` of texts whose color suits the color behind them, in light and dark."""
LEAST_SPAN = 0.1
"""Smallest range of values that a heat map's colors cover, relative to its largest value."""


@dataclass(frozen=True)
class Plot:
    """A plot and its description.

    Attributes:
        name: name for a file, without suffix.
        title: title of the plot.
        text: what the plot shows and how to read it, in a few sentences.
        light: the plot, as PNG.
        dark: the plot for readers who prefer a dark page, as PNG.
    """

    name: str
    title: str
    text: str
    light: bytes
    dark: bytes


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


def line_style(number: int) -> dict[str, Any]:
    """Return the color, marker and line style of an input, by its index."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-" if number < len(COLORS) else "--",
    }


def new_figure(height: float, legend: Sequence[str] = ()) -> Figure:
    """Return a figure of the common width.

    Args:
        height: height of the panels, in inches.
        legend: names in the legend below the panels.
    """
    return Figure(figsize=(WIDTH, height + _legend_height(legend)), layout="constrained")


def wrapped(name: str, width: int) -> str:
    """Break a name into lines of at most `width` characters, if possible after its separators."""
    lines = [""]
    for part in re.findall(r"[^ /_.+-]*[ /_.+-]?", name):
        while len(part) > width:  # a word that is longer than a line
            lines += [part[:width]]
            part = part[width:]
        if len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines if line.strip())


def legend_below(figure: Figure, panel: Axes) -> None:
    """Draw one legend for all panels below the figure, with the labels of `panel`."""
    handles, labels = panel.get_legend_handles_labels()
    _draw_legend(figure, handles, labels)


def numbers_below(figure: Figure, names: Sequence[str]) -> None:
    """Explain below a figure which input has which number, from 1."""
    handles = [
        Line2D([], [], linestyle="none", marker=f"${number}$", color="black", markersize=6)
        for number in range(1, len(names) + 1)
    ]
    _draw_legend(figure, handles, names)


def _draw_legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    figure.legend(
        handles,
        [wrapped(name, LINE - 4) for name in names],
        loc="outside lower center",
        ncols=_legend_columns(names),
        frameon=False,
        columnspacing=1,
    )


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(map(len, names), default=0)
    return max(1, min(4, len(names), LINE // (longest + 6)))


def _legend_height(names: Sequence[str]) -> float:
    rows = -(-len(names) // _legend_columns(names))
    lines = max((wrapped(name, LINE - 4).count("\n") + 1 for name in names), default=0)
    return rows * (0.13 * lines + 0.05)


def finish_plot(figure: Figure, name: str, title: str, text: str) -> Plot:
    """Make a plot of a figure. The figure is then dark.

    Args:
        figure: the figure.
        name: name for a file, without suffix.
        title: title of the plot.
        text: what the plot shows and how to read it.
    """
    light = _image(figure)
    figure.set_layout_engine("none")  # all is in its place, and finding that takes the most time
    _darken(figure)
    return Plot(name, title, text, light, _image(figure))


def _image(figure: Figure) -> bytes:
    image = BytesIO()
    figure.savefig(image, dpi=DPI, format="png")
    return image.getvalue()


@contextmanager
def small_fonts() -> Iterator[None]:
    """Have figures made and saved in this context use fonts for their width."""
    sizes: Any = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8}
    sizes |= {"legend.fontsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5}
    with matplotlib.rc_context():
        matplotlib.rcParams.update(sizes)
        yield


def _darken(figure: Figure) -> None:
    """Exchange a figure's black and white."""
    figure.set_facecolor(DARK)
    for panel in figure.axes:
        panel.set_facecolor(DARK)
        panel.tick_params(which="both", color=LIGHT, labelcolor=LIGHT)
        for spine in panel.spines.values():
            spine.set_edgecolor(LIGHT)
    for text in figure.findobj(Text):
        if text.get_gid() != ON_COLOR:
            text.set_color(LIGHT)
    for line in figure.findobj(Line2D):
        if matplotlib.colors.same_color(line.get_color(), "black"):
            line.set_color(LIGHT)
    for bars in figure.findobj(LineCollection):
        colors: Any = bars.get_color()
        if all(matplotlib.colors.same_color(color, "black") for color in colors):
            bars.set_color(LIGHT)
    for legend in figure.findobj(Legend):
        for handle in legend.legend_handles:
            if isinstance(handle, Line2D) and matplotlib.colors.same_color(
                handle.get_color(), "black"
            ):
                handle.set_color(LIGHT)
