"""Plots of values over λ: one of the objective, and one of each data set."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mergekit_spectral.reporting.plots import (
    Plot,
    finish_plot,
    line_style,
    new_figure,
    small_fonts,
    wrapped,
)
from mergekit_spectral.tuning.results import Result, SetResult, Tuning
from mergekit_spectral.tuning.sets import PERPLEXITY, metric_name
from mergekit_spectral.tuning.summary import by_candidate, find_result, most_examples, unit

HEIGHT = 2.6
"""Height of a figure, in inches."""
PALE = 0.4
"""Opacity of candidates that were compared on a part of the examples."""
CLOSE = 0.07
"""Labels beside a panel are put together if less than this share of its height is between them."""
LABEL = 10
"""Number of characters on a line beside a panel."""
TICKS: tuple[tuple[float, tuple[float, ...]], ...] = (
    (40, (1, 1.5, 2, 3, 5, 7)),
    (500, (1, 2, 5)),
    (math.inf, (1,)),
)
"""(largest λ / smallest λ, labeled λ up to this ratio, as multiples of powers of 10)."""

Measure = Callable[[Result], Result | SetResult]
"""Gives the part of a result that a plot shows."""


def draw_tuning(tuning: Tuning) -> list[Plot]:
    """Draw the objective, if it is made of several data sets, and each data set."""
    plots = []
    with small_fonts():
        if len(tuning.sets) > 1:
            text = "What is maximized, from all data sets."
            plots.append(_draw(tuning, "objective", unit(tuning), text, unit(tuning), _whole))
        for number, (name, metric) in enumerate(zip(tuning.sets, tuning.metrics, strict=True)):
            text = f"{tuning.examples[number][0]} examples."
            measure = partial(_of_set, number)
            plots.append(_draw(tuning, f"set-{number + 1}", name, text, metric, measure))
    return plots


def _whole(result: Result) -> Result:
    return result


def _of_set(number: int, result: Result) -> SetResult:
    return result.sets[number]


def _draw(tuning: Tuning, name: str, title: str, text: str, metric: str, measure: Measure) -> Plot:
    figure = new_figure(HEIGHT)
    panel = figure.subplots()
    _draw_candidates(panel, tuning, measure)
    panel.set_xscale("log")
    panel.set_xlabel("factor of the recipe's λ" if tuning.scales_lambda else "λ")
    _draw_unmerged(panel, tuning, measure)
    _draw_recipe_and_chosen(panel, tuning, measure)
    _label_scales(panel)
    panel.set_ylabel(metric_name(metric))
    if metric == PERPLEXITY:
        # Perplexity itself is huge at a λ that is much too large.
        panel.yaxis.set_major_formatter(FuncFormatter(_as_perplexity))
        panel.set_ylabel("perplexity (upwards is better)")
    panel.grid(alpha=0.3)
    return finish_plot(figure, name, title, text)


def _as_perplexity(value: float, _: object) -> str:
    return f"{1 / value:.3g}" if value > 1e-9 else ""


def _draw_candidates(panel: Axes, tuning: Tuning, measure: Measure) -> None:
    for number, results in enumerate(by_candidate(tuning).values()):
        shown = [measure(one) for one in results]
        panel.errorbar(
            [one.scale or 0.0 for one in results],
            [one.value for one in shown],
            [one.error for one in shown],
            alpha=1.0 if results[0].examples == most_examples(tuning) else PALE,
            markersize=4,
            elinewidth=0.8,
            linewidth=1.2,
            **line_style(number),
        )


def _draw_unmerged(panel: Axes, tuning: Tuning, measure: Measure) -> None:
    """Draw the base and the inputs as lines, with their labels beside the panel."""
    values = [measure(one).value for one in tuning.compared_to if one.candidate is None]
    for number, value in enumerate(values):
        panel.axhline(value, color="black" if number == 0 else "gray", linewidth=0.8, linestyle=":")
    low, high = panel.get_ylim()
    groups: list[list[int]] = []
    for number in sorted(range(len(values)), key=values.__getitem__):
        if groups and values[number] - values[groups[-1][-1]] < CLOSE * (high - low):
            groups[-1].append(number)
        else:
            groups.append([number])
    for group in groups:
        labels = ", ".join(str(number) if number else "base" for number in sorted(group))
        middle = sum(values[number] for number in group) / len(group)
        beside = panel.get_yaxis_transform()
        panel.text(1.02, middle, wrapped(labels, LABEL), transform=beside, va="center")


def _draw_recipe_and_chosen(panel: Axes, tuning: Tuning, measure: Measure) -> None:
    """Mark both λ above the panel, put a square around the recipe, and circle what is taken."""
    recipe, chosen = (
        find_result(tuning.results, name).scale or 0.0
        for name in (tuning.recipe_setting, tuning.chosen)
    )
    labels = {recipe: "recipe"}
    if tuning.is_changed:
        labels[chosen] = "recipe and taken" if chosen == recipe else "taken"
    first = min(labels)
    above = panel.get_xaxis_transform()
    for scale, label in labels.items():
        panel.axvline(scale, color="black", linewidth=0.8, linestyle="--")
        # Two labels may be close to each other.
        side = "center" if len(labels) == 1 else "right" if scale == first else "left"
        panel.text(scale, 1.02, label, transform=above, ha=side)
    own = measure(find_result(tuning.compared_to, tuning.recipe_setting))
    panel.errorbar(
        [recipe],
        [own.value],
        [own.error],
        color="black",
        marker="s",
        markersize=6,
        fillstyle="none",
        elinewidth=0.8,
    )
    for one in tuning.searched:
        if one.name == tuning.chosen and tuning.is_changed:
            value = measure(one).value
            panel.plot([chosen], [value], "o", color="black", fillstyle="none", markersize=10)


def _label_scales(panel: Axes) -> None:
    low, high = panel.get_xlim()
    factors = next(factors for ratio, factors in TICKS if high / low <= ratio)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    panel.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda scale, _: f"{scale:g}"))
