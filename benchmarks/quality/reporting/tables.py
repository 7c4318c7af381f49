"""The tables of the command `report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import click

from benchmarks.quality.reporting.aggregation import (
    Difference,
    Summary,
    against,
    base_by_task,
    by_size,
    by_task,
    missing_fine_tunes,
    missing_merges,
    of_all_tasks,
)
from benchmarks.quality.reporting.outcomes import SETTINGS, Outcomes
from benchmarks.quality.training.settings import Kind
from mergekit_spectral.command_line.tables import print_table

TITLES: dict[Kind, str] = {"lora": "LoRA adapters", "full": "full fine-tunes"}
AT = {"published": "at published settings", "tuned": "with tuned λ"}
NONE = "–"


def print_report(outcomes: Outcomes) -> None:
    """Print all tables, what they were measured on, and what is missing."""
    if outcomes.fine_tunes:
        _print_fine_tunes(outcomes)
    for kind in outcomes.planned.kinds:
        if any(merge.kind == kind for merge in outcomes.merges):
            _print_by_size(outcomes, kind)
            _print_against(outcomes, kind)
            _print_by_task(outcomes, kind)
            _print_scales(outcomes, kind)
    for line in (
        *measured_on_lines(outcomes.measured_on),
        *missing_fine_tunes(outcomes),
        *missing_merges(outcomes.planned, outcomes.merges),
    ):
        click.echo(line)


def cell(summary: Summary | None, planned: int = 0) -> str:
    """Return a mean in percent and its spread, with the number of values if more were planned."""
    if summary is None:
        return NONE
    spread = "" if summary.spread is None else f" ± {summary.spread:.1%}"
    count = f" (n = {summary.count})" if summary.count < planned else ""
    return f"{summary.mean:.1%}{spread}{count}".replace("%", "")


def measured_on_lines(setups: tuple[dict[str, Any], ...]) -> Iterator[str]:
    """Return a line for each machine, number of threads and set of versions."""
    for setup in setups:
        machine = setup["machine"]
        hardware = [f"{machine['cores']} cores", machine["cpu"], machine["gpu"]]
        software = [f"{name} {number}" for name, number in setup["versions"].items()]
        threads = f"{machine['threads']} threads"
        yield f"measured on: {', '.join([*filter(None, hardware), threads, *software])}"


def _print_fine_tunes(outcomes: Outcomes) -> None:
    print_table(
        "Fine-tunes: accuracy on their own task's test examples, in %",
        ("kind", "task", "base", "fine-tune", "loss at the end", "training, s"),
        [
            (
                tune.kind,
                tune.task,
                f"{100 * tune.base:.0f}",
                f"{100 * tune.accuracy:.0f}",
                f"{tune.loss:.3f}",
                f"{tune.seconds:.0f}",
            )
            for tune in outcomes.fine_tunes
        ],
        words=("kind", "task"),
    )


def _print_by_size(outcomes: Outcomes, kind: Kind) -> None:
    sizes = sorted({len(merge.tasks) for merge in outcomes.merges if merge.kind == kind})
    planned = Counter((m.kind, m.method, len(m.tasks)) for m in outcomes.planned.merges())
    for setting in SETTINGS:
        found = by_size(outcomes.merges, setting)
        print_table(
            f"Merges of {TITLES[kind]} {AT[setting]}",
            ("method", *map(str, sizes)),
            [
                (
                    method,
                    *(
                        cell(found.get((kind, method, size)), planned[kind, method, size])
                        for size in sizes
                    ),
                )
                for method in outcomes.planned.methods
            ],
            words=("method",),
            notes=(
                "Normalized accuracy in %, by number of tasks: mean ± standard deviation over "
                "subsets.",
            ),
        )


def _print_against(outcomes: Outcomes, kind: Kind, other: str = "ties") -> None:
    for setting in SETTINGS:
        found = {
            (method, size): differences
            for (own, method, size), differences in against(outcomes.merges, setting, other).items()
            if own == kind
        }
        sizes = sorted({size for _, size in found})
        rows = []
        for method in outcomes.planned.methods:
            own = [found.get((method, size), []) for size in sizes]
            together = [difference for differences in own for difference in differences]
            if together:
                rows.append((method, *map(_difference, [*own, together])))
        if rows:
            print_table(
                f"The same less {other}, {TITLES[kind]} {AT[setting]}",
                ("method", *map(str, sizes), "all"),
                rows,
                words=("method",),
                notes=(
                    f"Points that a method has more than {other} on the same tasks: mean ± half of "
                    "its 95% confidence interval over tasks, and on how many subsets it has more.",
                ),
            )


def _difference(subsets: Sequence[Mapping[str, float]]) -> str:
    if not subsets:
        return NONE
    found = Difference.of(subsets)
    error = "" if found.error is None else f" ± {100 * found.error:.1f}"
    return f"{100 * found.mean:+.1f}{error} ({found.better}/{found.count})"


def _print_by_task(outcomes: Outcomes, kind: Kind) -> None:
    merges = [merge for merge in of_all_tasks(outcomes) if merge.kind == kind]
    if not merges:
        return
    tasks = outcomes.planned.tasks
    base = {task: share for (own, task), share in base_by_task(outcomes).items() if own == kind}
    for setting in SETTINGS:
        found = by_task(merges, setting)
        methods = [m for m in outcomes.planned.methods if (kind, m, tasks[0]) in found]
        rows = [("base", base)] if len(base) == len(tasks) else []
        rows += [
            (method, {task: found[kind, method, task].mean for task in tasks}) for method in methods
        ]
        print_table(
            f"Merges of all {len(tasks)} {TITLES[kind]} {AT[setting]}: normalized accuracy in %, "
            "by task, mean over seeds",
            ("method", *tasks, "mean"),
            [(method, *_percentages(by_its_task)) for method, by_its_task in rows],
            words=("method",),
        )


def _percentages(by_its_task: Mapping[str, float]) -> list[str]:
    values = list(by_its_task.values())
    return [f"{100 * value:.0f}" for value in values] + [f"{100 * fmean(values):.1f}"]


def _print_scales(outcomes: Outcomes, kind: Kind) -> None:
    merges = [merge for merge in outcomes.merges if merge.kind == kind]
    sizes = sorted({len(merge.tasks) for merge in merges})
    rows = []
    for method in outcomes.planned.methods:
        mine = [merge for merge in merges if merge.method == method]
        if mine:
            chosen = [
                sorted(merge.scales["tuned"] for merge in mine if len(merge.tasks) == size)
                for size in sizes
            ]
            lists = [", ".join(f"{scale:g}" for scale in scales) or NONE for scales in chosen]
            rows.append((method, f"{mine[0].scales['published']:g}", *lists))
    print_table(
        f"λ of merges of {TITLES[kind]}",
        ("method", "published", *map(str, sizes)),
        rows,
        words=("method",),
        notes=("As published, and as chosen for each merge, by number of tasks.",),
    )
