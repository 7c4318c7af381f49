"""Run ``mergekit-spectral inspect``: write the report's files, and print the verdict."""

from __future__ import annotations

from pathlib import Path

import click
from mergekit.options import MergeOptions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.tables import print_answers, print_table
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.inspecting.report import PAGE, RECIPE, REPORT, inspect
from mergekit_spectral.inspecting.tables import HEADER, input_rows

SHOWN = 6
"""Number of columns of the inputs' table that a terminal shows: up to the rank at η = 40."""


def inspect_and_write(
    recipe: Path,
    out: Path,
    *,
    pattern: str | None,
    sample: int | None,
    lora_merge_cache: str | None,
    allow_crimes: bool,
    trust_remote_code: bool,
    console: Console,
) -> None:
    """Inspect a recipe's inputs, write the report, and print the verdict.

    Raises:
        MergeError: the recipe has an error or no base, a model is not on this machine, or the
            folder has other files of the report's names or cannot be written to.
    """
    silence_transformers()
    columns = (
        TextColumn("Inspecting tensors"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        report = inspect(
            recipe,
            out,
            MergeOptions(
                lora_merge_cache=lora_merge_cache,
                allow_crimes=allow_crimes,
                trust_remote_code=trust_remote_code,
            ),
            tensors=pattern,
            sample=sample,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if is_quiet():
        return
    verdict = report.verdict
    print_answers(
        verdict.headline,
        [(one.question, f"{one.answer}. {one.reason}") for one in verdict.answers],
    )
    if report.recipe:
        click.echo(f"The recommended recipe, {out / RECIPE}:\n")
        click.echo("".join(f"    {line}\n" for line in report.recipe.splitlines()))
    rows = input_rows(report.inspection)
    if console.is_terminal:  # the other columns are on the page, and would not fit
        rows = [row[:SHOWN] for row in rows]
    print_table("The inputs", HEADER[: len(rows[0]) if rows else SHOWN], rows, words=("input",))
    click.echo(f"The plots are in {out / PAGE}, and all numbers in {out / REPORT}.")
