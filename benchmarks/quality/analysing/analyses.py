"""The papers' analyses of a cache: variants of the methods, and single weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.quality.analysing.matrices import MatrixAnalysis, analyse_matrix
from benchmarks.quality.analysing.updates import analysed_weights, updates
from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.reporting.outcomes import MergeOutcome, Planned


@dataclass(frozen=True)
class Analyses:
    """What there is, whether or not it is everything that was planned.

    Attributes:
        planned: the merges by variants of the methods.
        measured_on: the machines and versions of those merges, each once.
        merges: by kind, method, number of tasks and tasks, in the plan's order.
        matrices: by kind and weight.
    """

    planned: Planned
    measured_on: tuple[dict[str, Any], ...]
    merges: tuple[MergeOutcome, ...]
    matrices: tuple[MatrixAnalysis, ...]


def analyse_cache(folder: Path, planned: Planned) -> Analyses:
    """Analyse the fine-tunes in a cache.

    Args:
        folder: the cache.
        planned: the merges by variants of the methods.

    Raises:
        click.ClickException: a fine-tune is missing.
    """
    # Late: recorded analyses are drawn without the packages that the tasks are made from.
    from benchmarks.quality.reporting.collecting import collect_planned_merges

    checkpoints = Checkpoints(folder)
    checkpoints.require(planned.kinds, planned.tasks)
    merges, measured_on = collect_planned_merges(checkpoints, planned)
    return Analyses(planned, measured_on, merges, tuple(_matrices(checkpoints, planned)))


def _matrices(checkpoints: Checkpoints, planned: Planned) -> Iterator[MatrixAnalysis]:
    for kind in planned.kinds:
        for weight in analysed_weights(checkpoints):
            click.echo(f"{kind} {weight}", err=True)
            deltas = updates(checkpoints, kind, planned.tasks, weight)
            yield analyse_matrix(kind, weight, deltas)
