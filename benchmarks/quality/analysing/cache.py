"""Variants of the methods by score, and single weights by their entries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.quality.analysing.analyses import Analyses
from benchmarks.quality.analysing.matrices import MatrixAnalysis, analyse_matrix
from benchmarks.quality.analysing.updates import analysed_weights, updates
from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.command import run_all
from benchmarks.quality.reporting.collecting import collect_planned_merges
from benchmarks.quality.reporting.outcomes import Planned


def analyse_cache(folder: Path, planned: Planned, merge: bool) -> Analyses:
    """Analyse the fine-tunes in a cache.

    Args:
        folder: the cache.
        planned: the merges by variants of the methods.
        merge: whether to make those merges that have no record yet.

    Raises:
        click.ClickException: a fine-tune is missing, or mergekit failed.
    """
    checkpoints = Checkpoints(folder)
    checkpoints.require(planned.kinds, planned.tasks)
    if merge:
        run_all(
            folder, planned.kinds, planned.methods, planned.tasks, planned.sizes, planned.subsets
        )
    merges, measured_on = collect_planned_merges(checkpoints, planned)
    return Analyses(planned, measured_on, merges, tuple(_matrices(checkpoints, planned)))


def _matrices(checkpoints: Checkpoints, planned: Planned) -> Iterator[MatrixAnalysis]:
    for kind in planned.kinds:
        for weight in analysed_weights(checkpoints):
            click.echo(f"{kind} {weight}", err=True)
            deltas = updates(checkpoints, kind, planned.tasks, weight)
            yield analyse_matrix(kind, weight, deltas)
