"""The plots of the command `report`, as PNG files."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from benchmarks.plots import PALETTE, save_figure
from benchmarks.quality.reporting.aggregation import base_by_task, by_size, by_task, of_all_tasks
from benchmarks.quality.reporting.outcomes import SETTINGS, Outcomes, Setting
from benchmarks.quality.reporting.tables import AT, TITLES
from benchmarks.quality.training.settings import Kind

COLORS = {**PALETTE, "dare_ties": "#E69F00", "della": "#56B4E9", "knots_dare_ties": "#CC79A7"}
# Solid lines for the spectral methods, so that the two families look different.
STYLES = {
    "task_arithmetic": ("s", ":"),
    "ties": ("o", "--"),
    "dare_ties": ("<", "--"),
    "della": ("v", ":"),
    "drm": ("D", "-"),
    "knots_ties": ("^", "-"),
    "knots_dare_ties": ("X", "-"),
    "star": ("P", "-"),
}
AXIS = "normalized accuracy"
_SHIFT = 0.07
"""Between neighbouring methods' points, so that their error bars do not hide one another."""


def draw_report(outcomes: Outcomes, folder: Path) -> list[Path]:
    """Draw what there are merges for and return the files."""
    drawn = []
    if outcomes.merges:
        drawn.append(folder / "number-of-tasks.png")
        _draw_sizes(outcomes, drawn[-1])
    if of_all_tasks(outcomes):
        for setting in SETTINGS:
            drawn.append(folder / f"all-tasks-{setting}.png")
            _draw_tasks(outcomes, setting, drawn[-1])
    return drawn


def say_missing(panel: Axes) -> None:
    """Write on a panel that there is nothing to draw yet."""
    panel.text(0.5, 0.5, "no results yet", ha="center", va="center", transform=panel.transAxes)


def _draw_sizes(outcomes: Outcomes, path: Path) -> None:
    kinds = outcomes.planned.kinds
    figure = Figure(figsize=(11, 9), layout="constrained")
    figure.suptitle(
        "Merges of SmolLM2-135M-Instruct fine-tunes: mean ± standard deviation over subsets of the "
        "tasks"
    )
    panels = figure.subplots(len(SETTINGS), len(kinds), sharex=True, sharey=True, squeeze=False)
    for row, setting in zip(panels, SETTINGS, strict=True):
        for panel, kind in zip(row, kinds, strict=True):
            _draw_curves(outcomes, setting, kind, panel)
        row[0].set_ylabel(AXIS)
    for panel in panels[-1]:
        panel.set_xlabel("number of tasks merged")
    named = {
        label: handle
        for panel in panels.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    order = [name for name in ("base", *outcomes.planned.methods) if name in named]
    figure.legend(
        [named[name] for name in order], order, loc="outside lower center", ncols=5, handlelength=3
    )
    save_figure(figure, path)


def _draw_curves(outcomes: Outcomes, setting: Setting, kind: Kind, panel: Axes) -> None:
    panel.set_title(f"{TITLES[kind]}, {AT[setting]}")
    panel.grid(alpha=0.3)
    panel.yaxis.set_major_formatter(PercentFormatter(1, 0))
    found = by_size([merge for merge in outcomes.merges if merge.kind == kind], setting)
    if not found:
        say_missing(panel)
        return
    base = [share for (own, _), share in base_by_task(outcomes).items() if own == kind]
    if len(base) == len(outcomes.planned.tasks):
        panel.axhline(fmean(base), color="black", linewidth=1, dashes=(1, 3), label="base")
    methods = outcomes.planned.methods
    for number, method in enumerate(methods):
        points = sorted((size, s) for (_, own, size), s in found.items() if own == method)
        if points:
            marker, line = STYLES[method]
            shift = _SHIFT * (number - (len(methods) - 1) / 2)
            panel.errorbar(
                [size + shift for size, _ in points],
                [summary.mean for _, summary in points],
                [summary.spread or 0 for _, summary in points],
                color=COLORS[method],
                marker=marker,
                linestyle=line,
                capsize=2,
                elinewidth=0.8,
                label=method,
            )
    panel.xaxis.set_major_locator(FixedLocator(sorted({len(m.tasks) for m in outcomes.merges})))
    panel.xaxis.set_minor_locator(NullLocator())


def _draw_tasks(outcomes: Outcomes, setting: Setting, path: Path) -> None:
    kinds, tasks = outcomes.planned.kinds, outcomes.planned.tasks
    figure = Figure(figsize=(10, 4.3 * len(kinds)), layout="constrained")
    figure.suptitle(f"Merges of all {len(tasks)} tasks {AT[setting]}: {AXIS} in %, mean over seeds")
    panels = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
    for panel, kind in zip(panels, kinds, strict=True):
        found = by_task([m for m in of_all_tasks(outcomes) if m.kind == kind], setting)
        methods = [m for m in outcomes.planned.methods if (kind, m, tasks[0]) in found]
        panel.set_title(TITLES[kind])
        if not methods:
            say_missing(panel)
            panel.set(xticks=(), yticks=())
            continue
        base = base_by_task(outcomes)
        rows = {
            method: [100 * found[kind, method, task].mean for task in tasks] for method in methods
        }
        if all((kind, task) in base for task in tasks):
            rows = {"base": [100 * base[kind, task] for task in tasks], **rows}
        with_mean = {name: [*values, fmean(values)] for name, values in rows.items()}
        _heat_map(with_mean, [*(task.replace("_", "\n") for task in tasks), "mean"], panel)
    save_figure(figure, path)


def _heat_map(rows: dict[str, list[float]], columns: list[str], panel: Axes) -> None:
    """Draw values from 0 to 100 and write them, the last column set apart."""
    panel.imshow(list(rows.values()), cmap="Blues", vmin=0, vmax=100, aspect="auto")
    panel.set_xticks(range(len(columns)), columns)
    panel.set_yticks(range(len(rows)), list(rows))
    panel.tick_params(length=0)
    panel.axvline(len(columns) - 1.5, color="white", linewidth=4)
    for y, values in enumerate(rows.values()):
        for x, value in enumerate(values):
            color = "white" if value > 65 else "black"
            panel.text(x, y, f"{value:.0f}", ha="center", va="center", color=color)
