"""Plots of what `merge_speed` measures, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.cases import Case, Result
from benchmarks.growth import Series, curve, exponent
from benchmarks.tables import Value, mebibytes, ratio_to_ties, seconds

# Okabe and Ito's colours, which colour-blind readers can distinguish; so can markers and hatches.
PALETTE = {
    "ties": "#000000",
    "task_arithmetic": "#999999",
    "drm": "#0072B2",
    "knots_ties": "#D55E00",
    "star": "#009E73",
}
SPARE = ("#E69F00", "#56B4E9", "#CC79A7", "#F0E442")
MARKERS = "osD^vP*X<>"


def growth_plot(series: Series, results: Sequence[Result], path: Path) -> None:
    """Draw time and memory of each method over the series' number, with fitted exponents."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    figure.suptitle(series.title)
    axes = figure.subplots(1, 2)
    methods = list(dict.fromkeys(case.method for case in series.cases))
    sizes = sorted({series.x(case) for case in series.cases})
    symbol = series.axis.split("(")[0].split(" of ")[0].split()[-1]
    panels: list[tuple[Value, str]] = [(seconds, "time in s"), (mebibytes, "peak memory in MiB")]
    for panel, (value, name) in zip(axes, panels, strict=True):
        for number, method in enumerate(methods):
            points = curve(series, results, method, value)
            power = exponent(points)
            fit = "" if power is None else f" ∝ ${symbol}^{{{power:.2f}}}$"
            panel.plot(
                *zip(*points, strict=True) if points else ((), ()),
                color=_color(method, methods),
                marker=MARKERS[number % len(MARKERS)],
                label=f"{method}{fit}",
            )
        panel.set(xscale="log", yscale="log", xlabel=series.axis, ylabel=name)
        panel.xaxis.set_major_locator(FixedLocator(sizes))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.grid(alpha=0.3)
        panel.legend()
    save_figure(figure, path)


def ratio_plots(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw each case's time and memory against ties', where ties was measured too."""
    panels: list[tuple[Value, str, str]] = [
        (seconds, "time", "Time to merge one weight, against ties"),
        (mebibytes, "memory", "Peak memory above the inputs, against ties"),
    ]
    drawn = []
    for value, name, title in panels:
        ratios = {result.case: ratio_to_ties(result, results, value) for result in results}
        known = {c: ratio for c, ratio in ratios.items() if ratio is not None and c != c.ties}
        if known:
            path = folder / f"ratio-{name}.png"
            _bars(known, title, f"{name}, times that of ties (log scale)", path)
            drawn.append(path)
    return drawn


def _bars(ratios: dict[Case, float], title: str, axis: str, path: Path) -> None:
    groups = list(dict.fromkeys(case.ties for case in ratios))
    labels = list(dict.fromkeys(case.label for case in ratios))
    methods = list(dict.fromkeys(case.method for case in ratios))
    height = 0.8 / len(labels)
    inches = 1.6 + len(groups) * (0.35 + 0.24 * len(labels))
    figure = Figure(figsize=(10, inches), layout="constrained")
    panel: Axes = figure.subplots()
    for number, label in enumerate(labels):
        mine = {case: ratio for case, ratio in ratios.items() if case.label == label}
        case = next(iter(mine))
        bars = panel.barh(
            [groups.index(case.ties) + (number + 0.5) * height - 0.4 for case in mine],
            # From 1 on, so that faster than ties points left and slower right.
            [ratio - 1 for ratio in mine.values()],
            height,
            left=1,
            color=_color(case.method, methods),
            alpha=0.55 if case.plain else 1,
            hatch="//" if case.plain else None,
            edgecolor="white",
            label=label,
        )
        figures = [f"{ratio:.3g}" for ratio in mine.values()]
        panel.bar_label(bars, figures, padding=3, fontsize=8)
    panel.axvline(1, color="black", linewidth=1)
    panel.set(title=title, xlabel=axis, xscale="log")
    panel.margins(x=0.15, y=0.02)
    panel.set_yticks(range(len(groups)), [_name(case) for case in groups])
    panel.invert_yaxis()
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(4, len(labels)))
    save_figure(figure, path)


def _name(case: Case) -> str:
    return f"{case.size.replace('x', ' × ')}, T = {case.inputs}\n{case.dtype}, {case.kind_label}"


def _color(method: str, methods: Sequence[str]) -> str:
    others = [name for name in methods if name not in PALETTE]
    return PALETTE.get(method) or SPARE[others.index(method) % len(SPARE)]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"savefig.dpi": 150}):
        figure.savefig(path)
