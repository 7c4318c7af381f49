"""The plots of the command `analyse`, as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.plots import save_figure
from benchmarks.quality.analysing import sign_agreement
from benchmarks.quality.analysing.analyses import Analyses
from benchmarks.quality.analysing.matrices import (
    AGREEMENT_AT,
    JOINT,
    PROJECTED,
    PRUNED_JOINT,
    PRUNED_TO,
    PRUNED_WEIGHTS,
    WEIGHTS,
    MatrixAnalysis,
)
from benchmarks.quality.analysing.tables import short_name
from benchmarks.quality.merging.variants import COMPARISONS
from benchmarks.quality.reporting.aggregation import by_size
from benchmarks.quality.reporting.outcomes import SETTINGS, Setting
from benchmarks.quality.reporting.plots import AXIS, say_missing
from benchmarks.quality.reporting.tables import AT, TITLES
from mergekit_spectral.inspecting import pruned_rows

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SETTING_STYLES: dict[Setting, tuple[str, str]] = {"published": (ORANGE, "o"), "tuned": (BLUE, "D")}
SPACE_STYLES = {
    WEIGHTS: ("black", "o", ":"),
    PRUNED_WEIGHTS: ("black", "s", "-"),
    JOINT: (BLUE, "^", ":"),
    PRUNED_JOINT: (BLUE, "D", "-"),
    PROJECTED: (GREEN, "v", "--"),
}


def draw_analyses(analyses: Analyses, folder: Path) -> list[Path]:
    """Draw what there are results of and return the files."""
    drawn = []
    if analyses.merges:
        drawn.append(folder / "variants.png")
        _draw_variants(analyses, drawn[-1])
    if analyses.matrices:
        drawn += [folder / f"{name}.png" for name in ("pruned-rows", "signs", "ranks")]
        _draw_pruned_rows(analyses, drawn[-3])
        _draw_agreement(analyses, drawn[-2])
        _draw_ranks(analyses, drawn[-1])
    return drawn


def _draw_variants(analyses: Analyses, path: Path) -> None:
    kinds, sizes = analyses.planned.kinds, analyses.planned.sizes
    lines: list[str | None] = []  # with a gap between the comparisons
    for methods in COMPARISONS.values():
        lines += [*methods, None]
    figure = Figure(figsize=(1.8 + 4.6 * len(kinds), 7.5), layout="constrained")
    figure.suptitle("Variants of the methods: mean ± standard deviation over subsets of the tasks")
    panels = figure.subplots(1, len(kinds), sharex=True, sharey=True, squeeze=False)[0]
    for panel, kind in zip(panels, kinds, strict=True):
        panel.set(title=TITLES[kind], xlabel=AXIS)
        panel.xaxis.set_major_formatter(PercentFormatter(1, 0))
        panel.grid(axis="x", alpha=0.3)
        for number, setting in enumerate(SETTINGS):
            found = by_size([m for m in analyses.merges if m.kind == kind], setting)
            color, marker = SETTING_STYLES[setting]
            for size in sizes:
                points = [
                    (found[kind, method, size], y + 0.2 * (number - 0.5))
                    for y, method in enumerate(lines)
                    if method and (kind, method, size) in found
                ]
                panel.errorbar(
                    [summary.mean for summary, _ in points],
                    [y for _, y in points],
                    xerr=[summary.spread or 0 for summary, _ in points],
                    color=color,
                    marker=marker,
                    markerfacecolor=color if size == max(sizes) else "white",
                    linestyle="",
                    elinewidth=0.8,
                    capsize=2,
                    label=f"{size} tasks, {AT[setting]}",
                )
        if not any(merge.kind == kind for merge in analyses.merges):
            say_missing(panel)
    named = [(y, method) for y, method in enumerate(lines) if method]
    panels[0].set_yticks([y for y, _ in named], [method for _, method in named])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    save_figure(figure, path)


def _draw_pruned_rows(analyses: Analyses, path: Path) -> None:
    title = f"How much of each row is pruned, at density {PRUNED_TO:g}: mean over weights"
    figure, panels = _panels(analyses, title)
    edges = np.linspace(0, 1, pruned_rows.BINS + 1)
    for panel, matrices in panels:
        ways = {
            "renormalized (DRM)": ([matrix.renormalized for matrix in matrices], BLUE, "-"),
            "without renormalization": ([m.unrenormalized for m in matrices], ORANGE, "--"),
        }
        for label, (rows, color, line) in ways.items():
            shares = np.mean([each.histogram for each in rows], axis=0)
            panel.stairs(shares, edges, color=color, linestyle=line, linewidth=2, label=label)
            panel.stairs(shares, edges, color=color, alpha=0.15, fill=True)
        panel.set(xlabel="share of a row's entries that is pruned", ylabel="share of rows")
        _in_percent(panel)
    _save(figure, panels, path)


def _draw_agreement(analyses: Analyses, path: Path) -> None:
    title = (
        f"Agreement of the inputs in sign, pruned to density {AGREEMENT_AT:g}: mean over weights"
    )
    figure, panels = _panels(analyses, title)
    shares = np.linspace(0.5, 1, sign_agreement.BINS)
    for panel, matrices in panels:
        for number, (space, (color, marker, line)) in enumerate(SPACE_STYLES.items()):
            places = np.mean([matrix.agreement[space].histogram for matrix in matrices], axis=0)
            panel.plot(
                shares,
                # Few inputs have few shares, between which a histogram would be all gaps.
                np.cumsum(places[::-1])[::-1],
                color=color,
                marker=marker,
                # Ever smaller, so that points in one place are seen.
                markersize=10 - 1.5 * number,
                linestyle=line,
                label=space,
            )
        panel.set(
            xlabel="share of inputs with the sign of the majority",
            ylabel="share of places with as much or more",
        )
        _in_percent(panel)
    _save(figure, panels, path)


def _draw_ranks(analyses: Analyses, path: Path) -> None:
    figure, panels = _panels(analyses, "Effective ranks of the updates", height=5.5)
    for panel, matrices in panels:
        rows = [y for y, matrix in enumerate(matrices) for _ in matrix.effective_ranks]
        ranks = [rank for matrix in matrices for rank in matrix.effective_ranks]
        panel.plot(ranks, rows, "o", color=BLUE, alpha=0.6, label="one input")
        joint = [matrix.joint_effective_rank for matrix in matrices]
        panel.plot(joint, range(len(joint)), "D", color=ORANGE, label="all side by side")
        panel.set_yticks(range(len(matrices)), [short_name(matrix.weight) for matrix in matrices])
        panel.invert_yaxis()
        panel.set(xlabel="effective rank", ylabel="layer and projection", xlim=(0, None))
        panel.grid(alpha=0.3)
    _save(figure, panels, path)


def _panels(
    analyses: Analyses, title: str, height: float = 4.8
) -> tuple[Figure, list[tuple[Axes, list[MatrixAnalysis]]]]:
    """Make a panel for each kind, with what there is to draw, if there is anything."""
    kinds = analyses.planned.kinds
    figure = Figure(figsize=(5.5 * len(kinds), height), layout="constrained")
    figure.suptitle(title)
    panels = []
    for panel, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        panel.set_title(TITLES[kind])
        matrices = [matrix for matrix in analyses.matrices if matrix.kind == kind]
        if matrices:
            panels.append((panel, matrices))
        else:
            say_missing(panel)
            panel.set(xticks=(), yticks=())
    return figure, panels


def _in_percent(panel: Axes) -> None:
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1, 0))
    panel.grid(alpha=0.3)


def _save(figure: Figure, panels: list[tuple[Axes, list[MatrixAnalysis]]], path: Path) -> None:
    """Save a figure of `_panels`, all of which have the same legend."""
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    save_figure(figure, path)
