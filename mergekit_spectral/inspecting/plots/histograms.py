"""Histograms of the pruned shares of rows in DRM, with renormalization and without (Figure 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.ticker import PercentFormatter

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.pruned_rows import BINS, PrunedRows
from mergekit_spectral.inspecting.weights import DENSITY, WeightReport
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.plots import (
    Plot,
    finish_plot,
    legend_below,
    line_style,
    new_figure,
)


def draw_pruned_rows(inspection: Inspection) -> Plot:
    """Draw the histograms of the pruned shares of rows."""
    names = short_names(inspection.inputs)
    figure = new_figure(4.6, names)
    panels = figure.subplots(2, 1, sharex=True)
    panel_values: list[tuple[str, Callable[[WeightReport], Sequence[PrunedRows | None]]]] = [
        ("without renormalization", lambda w: w.pruned_unrenormalized),
        ("with renormalization", lambda w: w.pruned),
    ]
    shares = (np.arange(BINS) + 0.5) / BINS
    for panel, (title, value) in zip(panels, panel_values, strict=True):
        for number, name in enumerate(names):
            found = [value(weight)[number] for weight in inspection.weights]
            histograms = [rows.histogram for rows in found if rows is not None]
            shown = np.mean(histograms, axis=0) if histograms else np.full(BINS, np.nan)
            panel.plot(shares, shown, label=name, markevery=4, markersize=4, **line_style(number))
        panel.axvline(1 - DENSITY, color="black", linestyle=":", linewidth=1)
        panel.set_title(title)
        panel.set(ylabel="share of an input's rows", xlim=(0, 1))
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_formatter(PercentFormatter(1, 0))
        panel.yaxis.set_major_formatter(PercentFormatter(1, 0))
        panel.grid(alpha=0.3)
    panels[-1].set_xlabel("share of a row's entries that is pruned")
    legend_below(figure, panels[0])
    return finish_plot(
        figure,
        "pruned",
        f"Rows that DRM prunes at density {DENSITY:g}",
        "A row is one joint direction of one input. Rows at 100% have no effect on the merge. The "
        "dotted line is the share that is pruned of all rows together. Renormalization is meant to "
        "bring all rows close to it.",
    )
