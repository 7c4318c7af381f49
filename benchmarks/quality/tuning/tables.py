"""The tables of the command `tune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from benchmarks.quality.reporting.tables import TITLES
from mergekit_spectral.command_line.tables import print_table

PUBLISHED = 1.0
"""λ of the recipes, which is the published one of the methods that are measured."""


def print_results(merges: Sequence[Mapping[str, Any]]) -> None:
    """Print what tuning found, and what other signals would have chosen.

    Args:
        merges: what `measure` returned, as JSON has it.
    """
    for kind, tasks in dict.fromkeys((one["kind"], tuple(one["tasks"])) for one in merges):
        own = [one for one in merges if (one["kind"], tuple(one["tasks"])) == (kind, tasks)]
        counts = sorted({draw["count"] for one in own for draw in one["draws"]})
        print_table(
            f"{len(tasks)} {TITLES[kind]}: accuracy on test examples, normalized, in percent",
            ("method", "λ = 1", "best of grid", *(f"tuned on {n}" for n in counts), "λ there"),
            [_found(one, counts) for one in own],
            words=("method",),
        )
        print_table(
            f"{len(tasks)} {TITLES[kind]}: the best λ of the grid by each signal",
            ("method", *(f"{name}, {n}" for n in counts for name in _signals(own))),
            [_by_signal(one, counts) for one in own],
            words=("method",),
        )


def _found(merge: Mapping[str, Any], counts: Sequence[int]) -> list[str]:
    grid = _grid(merge)
    scale = max(grid, key=grid.__getitem__)
    cells = [merge["method"], f"{100 * grid[PUBLISHED]:.1f}"]
    cells.append(f"{100 * grid[scale]:.1f} (λ = {scale:g})")
    chosen: list[float] = []
    for count in counts:
        draws = [draw for draw in merge["draws"] if draw["count"] == count]
        found = [draw["accuracy"] for draw in draws]
        chosen = [draw["scale"] for draw in draws]
        gain = grid[scale] - grid[PUBLISHED]
        spread = f" ± {100 * pstdev(found):.1f}" if len(found) > 1 else ""
        share = f" ({(fmean(found) - grid[PUBLISHED]) / gain:.0%})" if gain else ""
        cells.append(f"{100 * fmean(found):.1f}{spread}{share}")
    return [*cells, f"{min(chosen):g} to {max(chosen):g}"]


def _by_signal(merge: Mapping[str, Any], counts: Sequence[int]) -> list[str]:
    grid, cells = _grid(merge), [merge["method"]]
    for count in counts:
        draws = [draw["signals"] for draw in merge["draws"] if draw["count"] == count]
        cells += [f"{100 * fmean(grid[draw[name]] for draw in draws):.1f}" for name in draws[0]]
    return cells


def _grid(merge: Mapping[str, Any]) -> dict[float, float]:
    """Return the mean accuracy at each λ of the grid."""
    return {float(scale): fmean(each.values()) for scale, each in merge["grid"].items()}


def _signals(merges: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(merges[0]["draws"][0]["signals"])
