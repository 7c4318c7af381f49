"""Draw the plots of an inspection."""

from __future__ import annotations

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots.deciding import draw_deciding
from mergekit_spectral.inspecting.plots.heat_maps import draw_heat_maps
from mergekit_spectral.inspecting.plots.histograms import draw_pruned_rows
from mergekit_spectral.inspecting.plots.pairs import draw_pairs, draw_pairs_by_layer
from mergekit_spectral.inspecting.plots.spectra import draw_spectra
from mergekit_spectral.inspecting.summary import inputs_changing
from mergekit_spectral.reporting.plots import Plot, small_fonts

__all__ = ["DECIDING", "NAMES", "draw_inspection"]

DECIDING = ("balance", "cosines", "directions")
"""Names of the plots behind the verdict, which the page shows first."""
NAMES = (
    *DECIDING,
    "sizes",
    "effective-ranks",
    "stable-ranks",
    "kept-ranks",
    "norm-shares",
    "pruned-unrenormalized",
    "spectra",
    "pairs",
    "pairs-by-layer",
    "pruned",
)
"""Names of all plots' files, without suffix. The `inspect` command only replaces these files."""


def draw_inspection(inspection: Inspection) -> list[Plot]:
    """Draw all plots, and return them in the order in which the page shows them."""
    if not inspection.weights:
        return []
    with small_fonts():
        plots = [*draw_deciding(inspection), *draw_heat_maps(inspection)]
        plots.append(draw_spectra(inspection))
        if max(inputs_changing(inspection)) > 1:
            by_layer = draw_pairs_by_layer(inspection)
            plots += [draw_pairs(inspection), *filter(None, [by_layer])]
        if len(inspection.inputs) > 1:
            plots.append(draw_pruned_rows(inspection))
    return plots
