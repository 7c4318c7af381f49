"""The plots of an inspection, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    Array,
    Grid,
    grid,
    mean_over_weights,
    mean_pairs,
    short_names,
)
from mergekit_spectral.inspecting.weights import DENSITY, ETAS, SUBSPACE, WeightReport

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


def draw_inspection(inspection: Inspection, folder: Path) -> list[Plot]:
    """Draw all plots and return them in the order in which they are read."""
    if not inspection.weights:
        return []
    plots = [*_grids(inspection, folder), _spectra(inspection, folder)]
    if len(inspection.inputs) > 1:
        plots += [_pairs(inspection, folder), _pruned(inspection, folder)]
    return plots


def _grids(inspection: Inspection, folder: Path) -> list[Plot]:
    relative = all(weight.relative_norms for weight in inspection.weights)
    sizes: Callable[[WeightReport], Sequence[float]] = (
        (lambda w: w.relative_norms or ()) if relative else (lambda w: w.norms)
    )
    several = len(inspection.inputs) > 1
    wanted: list[tuple[str, str, str, Callable[[WeightReport], Sequence[float]], bool]] = [
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
            "With it every cell would be at the same value. Bright cells are where an input would "
            "nearly vanish.",
            lambda w: w.pruned_unrenormalized,
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
    low, high = np.nanmin(cells.values), np.nanmax(cells.values)
    # Values that hardly differ shall not look as if they did.
    slack = max(0.0, LEAST_SPAN * abs(high) - (high - low)) / 2
    low, high = low - slack, high + slack
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
        panel.yaxis.set_major_locator(MaxNLocator(8, integer=True))
        panel.yaxis.set_major_formatter(
            lambda place, _: str(cells.layers[int(place)]) if 0 <= place < len(cells.layers) else ""
        )
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel("layer")
    assert image is not None
    figure.colorbar(image, ax=panels, shrink=0.8)
    _save(figure, path)


def _spectra(inspection: Inspection, folder: Path) -> Plot:
    names = short_names(inspection.inputs)
    figure = Figure(figsize=(9.5, 4), layout="constrained")
    figure.suptitle("Singular values of the updates, and what STAR keeps of them")
    left, right = figure.subplots(1, 2)
    shares = np.linspace(0, 1, 40)
    ranks = np.array([mean_over_weights(inspection, partial(_kept, eta=eta)) for eta in ETAS])
    for number, name in enumerate(names):
        curves = [
            np.interp(shares, np.linspace(0, 1, len(w.spectra[number])), w.spectra[number])
            for w in inspection.weights
            if len(w.spectra[number]) > 1
        ]
        style = _style(number)
        if curves:
            mean = np.exp(np.mean(np.log(np.maximum(curves, 1e-6)), axis=0))
            left.plot(shares, mean, label=name, markevery=6, **style)
        right.plot(ETAS, ranks[:, number], label=name, **style)
    left.set(
        xlabel="place in the spectrum, as a share of all",
        ylabel="singular value over the largest",
        yscale="log",
    )
    left.xaxis.set_major_formatter(PercentFormatter(1, 0))
    right.set(xlabel="η, % of the nuclear norm", ylabel="directions kept", xticks=ETAS)
    right.set_ylim(bottom=0)
    for panel in (left, right):
        panel.grid(alpha=0.3)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(names)))
    path = folder / "spectra.png"
    _save(figure, path)
    return Plot(
        path,
        "Spectra",
        "Left, how fast the singular values fall, the mean over all weights. Right, how many "
        "directions STAR keeps at each η: where the line is flat, η hardly matters.",
    )


def _kept(weight: WeightReport, eta: int) -> Sequence[float]:
    return weight.kept_ranks[eta]


def _pairs(inspection: Inspection, folder: Path) -> Plot:
    names = short_names(inspection.inputs)
    panels: list[tuple[str, Array, float, float]] = [
        ("cosine", mean_pairs(inspection, lambda w: w.cosines), -1, 1),
        ("overlap, output side", mean_pairs(inspection, lambda w: w.overlap_out), 0, 1),
        ("overlap, input side", mean_pairs(inspection, lambda w: w.overlap_in), 0, 1),
        ("same sign, weights", mean_pairs(inspection, lambda w: w.agreement), 0, 1),
        ("same sign, joint space", mean_pairs(inspection, lambda w: w.joint_agreement), 0, 1),
    ]
    side = max(2.2, 0.42 * len(names) + 1)
    figure = Figure(figsize=(3 * side + 1, 2 * side + 1), layout="constrained")
    figure.suptitle("How the inputs go together: mean over all weights")
    axes = figure.subplots(2, 3, squeeze=False)
    for panel, (title, pairs, low, high) in zip(axes.flat, panels, strict=False):
        panel.imshow(pairs, cmap="cividis", vmin=low, vmax=high)
        panel.set_title(title, fontsize=9)
        _label_pairs(panel, names, pairs, low, high)
    axes.flat[-1].set_visible(False)
    path = folder / "pairs.png"
    _save(figure, path)
    return Plot(
        path,
        "Pairs",
        "Cosine: whether two updates add up (1), ignore each other (0) or cancel (-1). Overlap: "
        f"how much of their leading directions, up to {SUBSPACE}, two inputs share on either side. "
        "Same sign: at which share of places two inputs pull the same way; half is chance.",
    )


def _label_pairs(panel: Axes, names: Sequence[str], pairs: Array, low: float, high: float) -> None:
    places = range(len(names))
    panel.set_xticks(places, names, rotation=45, ha="right", fontsize=8)
    panel.set_yticks(places, names, fontsize=8)
    if len(names) <= 10:
        for i in places:
            for j in places:
                dark = (pairs[i, j] - low) / (high - low) < 0.6
                color = "white" if dark else "black"
                text = f"{pairs[i, j]:.2f}"
                panel.text(j, i, text, ha="center", va="center", color=color, fontsize=7)


def _pruned(inspection: Inspection, folder: Path) -> Plot:
    names = short_names(inspection.inputs)
    figure = Figure(figsize=(1.5 + max(5.0, 0.9 * len(names)), 3.8), layout="constrained")
    figure.suptitle(f"Entries that DRM prunes at density {DENSITY:g}")
    panel = figure.subplots()
    ways: list[tuple[str, Callable[[WeightReport], Sequence[float]], str, str]] = [
        ("with renormalization", lambda w: w.pruned, COLORS[0], ""),
        ("without", lambda w: w.pruned_unrenormalized, COLORS[1], "//"),
    ]
    for number, (label, value, color, hatch) in enumerate(ways):
        values = np.array([value(weight) for weight in inspection.weights])
        panel.bar(
            np.arange(len(names)) + 0.38 * (number - 0.5),
            values.mean(axis=0),
            0.36,
            yerr=values.std(axis=0),
            capsize=3,
            color=color,
            hatch=hatch,
            edgecolor="white",
            label=label,
        )
    panel.axhline(1 - DENSITY, color="black", linestyle=":", linewidth=1)
    panel.set(ylabel="share of an input's entries", ylim=(0, 1))
    panel.yaxis.set_major_formatter(PercentFormatter(1, 0))
    panel.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0, fontsize=9)
    panel.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    path = folder / "pruned.png"
    _save(figure, path)
    return Plot(
        path,
        "Pruning",
        "The dotted line is what all inputs lose together. An input far above it without "
        "renormalization would nearly vanish from the merge. Bars: mean and standard deviation "
        "over all weights.",
    )


def _style(number: int) -> dict[str, str]:
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-" if number < len(COLORS) else "--",
    }


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"savefig.dpi": 130}):
        figure.savefig(path)
