"""Plots of the singular values, and of the ranks that STAR keeps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots.style import Plot, legend_below, line_style, save
from mergekit_spectral.inspecting.summary import mean_over_weights, short_names
from mergekit_spectral.inspecting.weights import ETAS, WeightReport


def draw_spectra(inspection: Inspection, folder: Path) -> Plot:
    """Draw the inputs' mean spectra, and the mean kept ranks by η."""
    names = short_names(inspection.inputs)
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    figure.suptitle("Singular values of the updates, and ranks that STAR keeps")
    left, right = figure.subplots(1, 2)
    shares = np.linspace(0, 1, 40)
    ranks = np.array([mean_over_weights(inspection, partial(_kept, eta=eta)) for eta in ETAS])
    for number, name in enumerate(names):
        curves = [
            np.interp(shares, np.linspace(0, 1, len(spectrum)), spectrum)
            for spectrum in (weight.spectra[number] for weight in inspection.weights)
            if spectrum is not None and len(spectrum) > 1
        ]
        style = line_style(number)
        if curves:
            mean = np.exp(np.mean(np.log(np.maximum(curves, 1e-6)), axis=0))
            left.plot(shares, mean, label=name, markevery=6, **style)
        right.plot(ETAS, ranks[:, number], label=name, **style)
    left.set(
        xlabel="position in the spectrum, as a share of all",
        ylabel="singular value / largest singular value",
        yscale="log",
    )
    left.xaxis.set_major_formatter(PercentFormatter(1, 0))
    right.set(xlabel="η, % of the nuclear norm", ylabel="directions kept", xticks=ETAS)
    right.set_ylim(bottom=0)
    for panel in (left, right):
        panel.grid(alpha=0.3)
    legend_below(figure, right)
    path = folder / "spectra.png"
    save(figure, path)
    return Plot(
        path,
        "Spectra",
        "Left: how fast the singular values decrease, as the mean over all weights. Right: the "
        "number of directions that STAR keeps at each η. Where the line is flat, η has little "
        "effect.",
    )


def _kept(weight: WeightReport, eta: int) -> Sequence[float | None]:
    return weight.kept_ranks[eta]
