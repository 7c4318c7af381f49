"""Plots of the singular values, and of the ranks that STAR keeps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.ticker import PercentFormatter

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots.deciding import mean_spectrum
from mergekit_spectral.inspecting.summary import mean_over_weights
from mergekit_spectral.inspecting.weights import ETAS, WeightReport
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.plots import (
    Plot,
    finish_plot,
    legend_below,
    line_style,
    new_figure,
)


def draw_spectra(inspection: Inspection) -> Plot:
    """Draw the inputs' mean spectra, and the mean kept ranks by η."""
    names = short_names(inspection.inputs)
    figure = new_figure(4.6, names)
    upper, lower = figure.subplots(2, 1)
    shares = np.linspace(0, 1, 40)
    ranks = np.array([mean_over_weights(inspection, partial(_kept, eta=eta)) for eta in ETAS])
    for number, name in enumerate(names):
        style = {"markersize": 4, **line_style(number)}
        curve = mean_spectrum(inspection, number, shares)
        if curve is not None:
            upper.plot(shares, curve, label=name, markevery=6, **style)
        lower.plot(ETAS, ranks[:, number], label=name, **style)
    upper.set(
        xlabel="position in the spectrum, as a share of all",
        ylabel="singular value / largest",
        yscale="log",
    )
    upper.xaxis.set_major_formatter(PercentFormatter(1, 0))
    lower.set(xlabel="η, % of the nuclear norm", ylabel="directions kept", xticks=ETAS)
    lower.set_ylim(bottom=0)
    for panel in (upper, lower):
        panel.grid(alpha=0.3)
    legend_below(figure, lower)
    return finish_plot(
        figure,
        "spectra",
        "Singular values, and ranks that STAR keeps",
        "Above: how fast the singular values decrease, as the mean over all weights. Below: the "
        "number of directions that STAR keeps at each η. Where the line is flat, η has little "
        "effect.",
    )


def _kept(weight: WeightReport, eta: int) -> Sequence[float | None]:
    return weight.kept_ranks[eta]
