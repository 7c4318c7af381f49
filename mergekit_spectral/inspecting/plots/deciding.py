"""The three plots behind the verdict: sizes, cosines and singular values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    Array,
    relative_sizes,
    total_cosines,
    total_norms,
)
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.plots import (
    COLORS,
    ON_COLOR,
    Plot,
    finish_plot,
    legend_below,
    line_style,
    new_figure,
    wrapped,
)

LABEL = 24
"""Number of characters of a name on one line beside a panel."""
CELLS = 8
"""Maximum number of inputs for which every cosine is written into its cell."""


def draw_deciding(inspection: Inspection) -> Iterator[Plot]:
    """Draw what decides whether and how to merge.

    Sizes show whether the inputs are balanced, cosines whether they conflict or are copies, and
    singular values whether they are adapters.
    """
    yield _draw_balance(inspection)
    if len(inspection.inputs) > 1:
        yield _draw_cosines(inspection)
    yield _draw_directions(inspection)


def _draw_balance(inspection: Inspection) -> Plot:
    names = short_names(inspection.inputs)
    relative = relative_sizes(inspection)
    sizes = total_norms(inspection) if relative is None else relative
    labels = [wrapped(name, LABEL) for name in names]
    figure = new_figure(0.7 + _rows_height(labels))
    panel = figure.subplots()
    places = range(len(names))
    panel.barh(places, sizes, color=[COLORS[t % 6] for t in places], height=0.6)
    panel.set_yticks(places, labels)
    panel.invert_yaxis()
    form = "{:.3g}" if relative is None else "{:.2%}"
    for place, size in zip(places, sizes, strict=True):
        panel.annotate(
            form.format(size), (size, place), (3, 0), textcoords="offset points", va="center"
        )
    panel.margins(x=0.25)
    panel.set_xlim(left=0)
    what = "norm of the update"
    panel.set_xlabel(what if relative is None else f"{what} / norm of the base")
    if relative is not None:
        panel.xaxis.set_major_formatter(PercentFormatter(1))
    panel.locator_params(axis="x", nbins=4)
    return finish_plot(
        figure,
        "balance",
        "Balanced?",
        "The size of each input's whole update. An input with a bar twice as long decides most "
        "signs; one with hardly a bar changes nothing.",
    )


def _rows_height(labels: Sequence[str]) -> float:
    """Return the height of rows with these labels, in inches."""
    lines = max(label.count("\n") + 1 for label in labels)
    return len(labels) * max(0.28, 0.13 * lines + 0.06)


def _draw_cosines(inspection: Inspection) -> Plot:
    names = short_names(inspection.inputs)
    cosines = total_cosines(inspection)
    labels = [wrapped(f"{number} {name}", LABEL) for number, name in enumerate(names, 1)]
    figure = new_figure(0.6 + _rows_height(labels))
    panel = figure.subplots()
    image = panel.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    places = range(len(names))
    panel.set_xticks(places, [str(number) for number in range(1, len(names) + 1)])
    panel.set_yticks(places, labels)
    if len(names) <= CELLS:
        for i in places:
            for j in places:
                if not np.isnan(cosines[i, j]):
                    color = "white" if abs(cosines[i, j]) > 0.6 else "black"
                    value = f"{round(float(cosines[i, j]), 2) + 0.0:.2f}"
                    style: dict[str, Any] = {
                        "ha": "center",
                        "va": "center",
                        "color": color,
                        "gid": ON_COLOR,
                    }
                    panel.text(j, i, value, **style)
    figure.colorbar(image, ax=panel, label="cosine")
    return finish_plot(
        figure,
        "cosines",
        "Compatible?",
        "The cosine of each pair of whole updates. Blue pairs add up, and at 1 are copies of each "
        "other; white pairs do not disturb each other; red pairs cancel.",
    )


def _draw_directions(inspection: Inspection) -> Plot:
    names = short_names(inspection.inputs)
    figure = new_figure(2.4, names)
    panel = figure.subplots()
    shares = np.linspace(0, 1, 40)
    for number, name in enumerate(names):
        curve = mean_spectrum(inspection, number, shares)
        if curve is not None:
            panel.plot(shares, curve, label=name, markevery=6, markersize=4, **line_style(number))
    edges = [
        rounding.edge
        for weight in inspection.weights
        for rounding in weight.roundings
        if rounding is not None
    ]
    rounded = bool(edges) and float(np.median(edges)) > 1e-3
    if rounded:
        panel.axhline(float(np.median(edges)), color="black", linestyle=":", linewidth=1)
    panel.set(
        xlabel="position in the spectrum, as a share of all",
        ylabel="singular value / largest",
        yscale="log",
    )
    panel.xaxis.set_major_formatter(PercentFormatter(1, 0))
    panel.grid(alpha=0.3)
    if panel.lines:
        legend_below(figure, panel)
    line = (
        " Values below the dotted line are no more than the rounding errors of the checkpoint."
        if rounded
        else ""
    )
    return finish_plot(
        figure,
        "directions",
        "Adapters or full fine-tunes?",
        "How fast the singular values decrease, as the mean over all weights. Adapters have a few "
        f"large values, full fine-tunes have values in all directions.{line}",
    )


def mean_spectrum(inspection: Inspection, number: int, shares: Array) -> Array | None:
    """Return the geometric mean of an input's spectra over all weights.

    Args:
        inspection: the inspection.
        number: index of the input.
        shares: positions in the spectrum, as shares of its length, from 0 to 1.

    Returns:
        The mean singular values, divided by the largest one; None if the input has no spectrum of
        two values or more.
    """
    curves = [
        np.interp(shares, np.linspace(0, 1, len(spectrum)), spectrum)
        for spectrum in (weight.spectra[number] for weight in inspection.weights)
        if spectrum is not None and len(spectrum) > 1
    ]
    if not curves:
        return None
    mean: Array = np.exp(np.mean(np.log(np.maximum(curves, 1e-6)), axis=0))
    return mean
