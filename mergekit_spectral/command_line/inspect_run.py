"""Run ``mergekit-spectral inspect``: write the report's files, and print the verdict."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from mergekit.options import MergeOptions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.tables import print_answers, print_table
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.inspecting.inspection import RECORD, inspect
from mergekit_spectral.inspecting.page import HEADER, input_rows, write_page
from mergekit_spectral.inspecting.plots import NAMES, draw_inspection
from mergekit_spectral.inspecting.recipe_text import change_recipe
from mergekit_spectral.inspecting.suggestions import suggestions
from mergekit_spectral.inspecting.takeaways import takeaways
from mergekit_spectral.inspecting.verdict import decide
from mergekit_spectral.whole_files import errors_as_sentences, move_up, require_own, unfinished

PAGE = "index.html"
REPORT = "report.json"
RECIPE = "recommended.yml"
SHOWN = 6
"""Number of columns of the inputs' table that a terminal shows: up to the rank at η = 40."""
PLOTS = [f"{name}.png" for name in NAMES]


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
    require_own(out, (PAGE, REPORT, RECIPE, *PLOTS), RECORD, "an earlier inspection")
    columns = (
        TextColumn("Inspecting tensors"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        inspection = inspect(
            recipe,
            out,
            MergeOptions(
                lora_merge_cache=lora_merge_cache,
                allow_crimes=allow_crimes,
                trust_remote_code=trust_remote_code,
            ),
            pattern=pattern,
            sample=sample,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    verdict = decide(inspection)
    recommended = None
    if verdict.changes is not None:
        recommended = change_recipe(recipe.read_text("utf-8"), verdict.changes)
    report = {
        "verdict": asdict(verdict),
        **asdict(inspection),
        "takeaways": takeaways(inspection),
        "suggestions": [asdict(suggestion) for suggestion in suggestions(inspection)],
    }
    with errors_as_sentences(out), unfinished(out) as new:
        plots = draw_inspection(inspection)
        for plot in plots:
            (new / f"{plot.name}.png").write_bytes(plot.light)
        (new / REPORT).write_text(json.dumps(report, indent=1) + "\n")
        write_page(inspection, verdict, recommended, plots, new / PAGE)
        if recommended:
            (new / RECIPE).write_text(recommended, encoding="utf-8")
        names = [name for name in (*PLOTS, REPORT, RECIPE, PAGE) if (new / name).exists()]
        for name in (*PLOTS, RECIPE):
            if name not in names:
                (out / name).unlink(missing_ok=True)
        # The page is moved last, so that the report is complete once the page is there.
        move_up(new, names)
    if is_quiet():
        return
    print_answers(
        verdict.headline,
        [(one.question, f"{one.answer}. {one.reason}") for one in verdict.answers],
    )
    if recommended:
        click.echo(f"The recommended recipe, {out / RECIPE}:\n")
        click.echo("".join(f"    {line}\n" for line in recommended.splitlines()))
    rows = input_rows(inspection)
    if console.is_terminal:  # the other columns are on the page, and would not fit
        rows = [row[:SHOWN] for row in rows]
    print_table("The inputs", HEADER[: len(rows[0]) if rows else SHOWN], rows, words=("input",))
    click.echo(f"The plots are in {out / PAGE}, and all numbers in {out / REPORT}.")
