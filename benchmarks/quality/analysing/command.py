"""The command `analyse`: the papers' analyses, on this suite's fine-tunes."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.quality.analysing.analyses import Analyses, analyse_cache
from benchmarks.quality.analysing.tables import print_analyses
from benchmarks.quality.reporting.outcomes import Planned, read_lines, write_lines


def analyse_all(folder: Path, planned: Planned, json_path: Path, plots: Path | None) -> None:
    """Analyse the fine-tunes in a cache, and write, print and draw what comes out.

    Args:
        folder: the cache.
        planned: the merges by variants of the methods.
        json_path: where the results go.
        plots: where the plots go; none if None.

    Raises:
        click.ClickException: a fine-tune is missing.
    """
    analyses = analyse_cache(folder, planned)
    write_lines(json_path, Analyses, analyses)
    _show(analyses, plots)


def analyse_file(given: Path, plots: Path | None) -> None:
    """Print and draw what an earlier run wrote.

    Raises:
        click.ClickException: there is no such file, or it holds something else.
    """
    _show(read_lines(given, Analyses), plots)


def _show(analyses: Analyses, plots: Path | None) -> None:
    """Print tables, and draw plots if there is a folder for them."""
    print_analyses(analyses)
    if plots:
        from benchmarks.quality.analysing.plots import draw_analyses

        for path in draw_analyses(analyses, plots):
            click.echo(f"drawn: {path}")
