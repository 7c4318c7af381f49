"""Values of each input by layer and kind of weight."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots.style import SCALE, Plot, label_layers, save, spread
from mergekit_spectral.inspecting.summary import Grid, PerInput, grid, pruned_without, short_names
from mergekit_spectral.inspecting.weights import DENSITY


def draw_heat_maps(inspection: Inspection, folder: Path) -> list[Plot]:
    """Draw sizes, ranks, shares of the joint directions and pruned entries, where useful."""
    relative = all(weight.relative_norms for weight in inspection.weights)
    sizes: PerInput = (lambda w: w.relative_norms or ()) if relative else (lambda w: w.norms)
    several = len(inspection.inputs) > 1
    wanted: list[tuple[str, str, str, PerInput, bool]] = [
        (
            "sizes",
            "Size of the updates" + (", over the base's" if relative else ""),
            "The Frobenius norm of each input's update, by layer and kind of weight. A bright "
            "input outvotes a dark one; dark layers were hardly trained.",
            sizes,
            True,
        ),
        (
            "effective-ranks",
            "Effective rank of the updates",
            "How many directions an update spreads over (the exponential of its spectrum's "
            "entropy). Few directions survive truncation and pruning more easily.",
            lambda w: w.effective_ranks,
            True,
        ),
        (
            "stable-ranks",
            "Stable rank of the updates",
            "The squared norm over that of the largest singular value: near 1 where one direction "
            "is nearly all there is.",
            lambda w: w.stable_ranks,
            True,
        ),
        (
            "kept-ranks",
            "Rank that STAR keeps at η = 40",
            "How many directions hold 40% of the nuclear norm.",
            lambda w: w.kept_ranks[40],
            True,
        ),
        (
            "norm-shares",
            "Share of the leading joint directions",
            "How much of the norm of the leading joint directions is each input's. Where one has "
            "nearly all, the joint space is its own, and DRM's renormalization matters most.",
            lambda w: w.norm_shares,
            several,
        ),
        (
            "pruned-unrenormalized",
            f"Entries pruned at density {DENSITY:g} without renormalization",
            "With it the cells of a weight are at about one value. Bright cells are where an input "
            "would nearly vanish.",
            pruned_without,
            several,
        ),
    ]
    plots = []
    for name, title, text, value, useful in wanted:
        cells = grid(inspection, value)
        if useful and cells is not None:
            plots.append(Plot(folder / f"{name}.png", title, text))
            _heat_maps(cells, inspection, title, plots[-1].path)
    return plots


def _heat_maps(cells: Grid, inspection: Inspection, title: str, path: Path) -> None:
    """Draw layers against kinds of weight, a panel for each input."""
    names = short_names(inspection.inputs)
    across = min(len(names), 4)
    down = -(-len(names) // across)
    width = 1.6 + across * max(1.8, 0.32 * len(cells.kinds))
    height = 1.6 + down * max(2.2, min(4.5, 0.13 * len(cells.layers) + 1.2))
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    low, high = spread(cells.values)
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
