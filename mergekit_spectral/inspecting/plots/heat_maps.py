"""Heat maps of each input's values, by layer and kind of weight."""

from __future__ import annotations

from matplotlib.figure import Figure

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    Grid,
    PerInput,
    lay_out_grid,
    pruned_share_unrenormalized,
)
from mergekit_spectral.inspecting.weights import DENSITY
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.plots import (
    LINE,
    SCALE,
    Plot,
    color_range,
    finish_plot,
    label_layers,
    new_figure,
    wrapped,
)

KINDS = 10
"""Maximum number of kinds of weight for which two panels are side by side."""


def draw_heat_maps(inspection: Inspection) -> list[Plot]:
    """Draw sizes, ranks, and with several inputs shares of directions and pruned entries."""
    relative = all(weight.relative_norms for weight in inspection.weights)
    sizes: PerInput = (lambda w: w.relative_norms or ()) if relative else (lambda w: w.norms)
    several = len(inspection.inputs) > 1
    wanted: list[tuple[str, str, str, PerInput, bool]] = [
        (
            "sizes",
            "Relative size of the updates" if relative else "Size of the updates",
            f"The Frobenius norm of each input's update{', divided by the base' * relative}, by "
            "layer and kind of weight. An input with bright cells decides most signs against one "
            "with dark cells. Dark layers were hardly trained.",
            sizes,
            True,
        ),
        (
            "effective-ranks",
            "Effective rank of the updates",
            "The number of directions over which an update is spread: the exponential of the "
            "entropy of its singular values. Truncation and pruning change an update with few "
            "directions less.",
            lambda w: w.effective_ranks,
            True,
        ),
        (
            "stable-ranks",
            "Stable rank of the updates",
            "The squared Frobenius norm divided by the squared largest singular value. It is near "
            "1 if one direction has nearly the whole norm.",
            lambda w: w.stable_ranks,
            True,
        ),
        (
            "kept-ranks",
            "Rank that STAR keeps at η = 40",
            "The number of directions that have 40% of the nuclear norm.",
            lambda w: w.kept_ranks[40],
            True,
        ),
        (
            "norm-shares",
            "Share of the leading joint directions",
            "Each input's share of the squared norm of the leading joint directions. If one input "
            "has nearly the whole norm, the joint space consists of its directions, and DRM's "
            "renormalization has the largest effect.",
            lambda w: w.norm_shares,
            several,
        ),
        (
            "pruned-unrenormalized",
            f"Entries pruned at density {DENSITY:g} without renormalization",
            "With renormalization, all inputs' cells of a weight have about the same value. In "
            "bright cells, nearly the whole update of an input would be pruned.",
            pruned_share_unrenormalized,
            several,
        ),
    ]
    plots = []
    for name, title, text, value, drawn in wanted:
        cells = lay_out_grid(inspection, value)
        if drawn and cells is not None:
            plots.append(finish_plot(_draw(cells, inspection), name, title, text))
    return plots


def _draw(cells: Grid, inspection: Inspection) -> Figure:
    """Draw one panel for each input, with layers as rows and kinds of weight as columns."""
    names = short_names(inspection.inputs)
    across = min(len(names), 2 if len(cells.kinds) <= KINDS else 1)
    down = -(-len(names) // across)
    figure = new_figure(1.0 + down * max(1.6, min(3.5, 0.1 * len(cells.layers) + 0.9)))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    low, high = color_range(cells.values)
    image = None
    for panel, values, name in zip(panels.flat, cells.values, names, strict=False):
        image = panel.imshow(
            values, aspect="auto", cmap=SCALE, vmin=low, vmax=high, interpolation="nearest"
        )
        panel.set_title(wrapped(name, LINE // 2 * (3 - across)))
        panel.set_xticks(
            range(len(cells.kinds)),
            cells.kinds,
            rotation=60,
            ha="right",
            rotation_mode="anchor",
        )
        label_layers(panel, cells.layers)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for panel in panels.flat[max(0, len(names) - across) : len(names)]:
        panel.tick_params(labelbottom=True)  # also above the panels that are not visible
    for row in panels:
        row[0].set_ylabel("layer")
    assert image is not None
    figure.colorbar(image, ax=panels, location="bottom", shrink=0.8, aspect=40)
    return figure
