"""Heat maps of each input's values, by layer and kind of weight."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots.style import SCALE, Plot, color_range, label_layers, save
from mergekit_spectral.inspecting.summary import (
    Grid,
    PerInput,
    lay_out_grid,
    pruned_share_unrenormalized,
    short_names,
)
from mergekit_spectral.inspecting.weights import DENSITY


def draw_heat_maps(inspection: Inspection, folder: Path) -> list[Plot]:
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
            plots.append(Plot(folder / f"{name}.png", title, text))
            _draw(cells, inspection, title, plots[-1].path)
    return plots


def _draw(cells: Grid, inspection: Inspection, title: str, path: Path) -> None:
    """Draw one panel for each input, with layers as rows and kinds of weight as columns."""
    names = short_names(inspection.inputs)
    across = min(len(names), 4)
    down = -(-len(names) // across)
    width = 1.6 + across * max(1.8, 0.32 * len(cells.kinds))
    height = 1.6 + down * max(2.2, min(4.5, 0.13 * len(cells.layers) + 1.2))
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    low, high = color_range(cells.values)
    image = None
    for panel, values, name in zip(panels.flat, cells.values, names, strict=False):
        image = panel.imshow(
            values, aspect="auto", cmap=SCALE, vmin=low, vmax=high, interpolation="nearest"
        )
        panel.set_title(name, fontsize=9)
        panel.set_xticks(
            range(len(cells.kinds)),
            cells.kinds,
            rotation=60,
            ha="right",
            fontsize=8,
        )
        label_layers(panel, cells.layers)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel("layer")
    assert image is not None
    figure.colorbar(image, ax=panels, shrink=0.8)
    save(figure, path)
