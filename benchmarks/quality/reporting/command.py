"""The command `report`: tables, plots and one compact file of all results."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.quality.merging.methods import METHODS
from benchmarks.quality.merging.plan import SIZES, SUBSETS
from benchmarks.quality.reporting.outcomes import Outcomes, Planned, read_lines, write_lines
from benchmarks.quality.reporting.tables import print_report
from benchmarks.quality.training.settings import KINDS


def report_all(folder: Path, json_path: Path, plots: Path | None) -> None:
    """Print the results in a cache, write them to a file, and draw them.

    Args:
        folder: the cache.
        json_path: where the results go.
        plots: where the plots go; none if None.

    Raises:
        click.ClickException: there are no results.
    """
    # Late: what was written can be drawn without what the tasks are made of.
    from benchmarks.quality.checkpoints import Checkpoints
    from benchmarks.quality.reporting.collecting import collect
    from benchmarks.quality.tasks import TASKS

    planned = Planned(KINDS, tuple(METHODS), tuple(TASKS), SIZES, SUBSETS)
    outcomes = collect(Checkpoints(folder), planned)
    write_lines(json_path, Outcomes, outcomes)
    _show(outcomes, plots)


def report_file(given: Path, plots: Path | None) -> None:
    """Print and draw what an earlier report wrote.

    Raises:
        click.ClickException: there is no such file, or it holds something else.
    """
    _show(read_lines(given, Outcomes), plots)


def _show(outcomes: Outcomes, plots: Path | None) -> None:
    print_report(outcomes)
    if plots:
        from benchmarks.quality.reporting.plots import draw_report

        for path in draw_report(outcomes, plots):
            click.echo(f"drawn: {path}")
