"""``mergekit-spectral inspect``: the report's files, and what to take away on the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from mergekit.options import MergeOptions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mergekit_spectral.inspecting.inspection import inspect
from mergekit_spectral.inspecting.page import HEADER, input_rows, write_page
from mergekit_spectral.inspecting.plots import draw_inspection
from mergekit_spectral.inspecting.suggestions import suggestions
from mergekit_spectral.inspecting.takeaways import takeaways
from mergekit_spectral.tables import print_table
from mergekit_spectral.transformers_output import silence_transformers


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
    """Look at a recipe's inputs, write the report, and print what to take away.

    Raises:
        MergeError: the recipe has an error or no base, or a model is not here.
    """
    silence_transformers()
    columns = (
        TextColumn("Looking at tensors"),
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
    plots = draw_inspection(inspection, out)
    sentences = takeaways(inspection)
    told = {
        **asdict(inspection),
        "takeaways": sentences,
        "suggestions": [asdict(suggestion) for suggestion in suggestions(inspection)],
    }
    (out / "report.json").write_text(json.dumps(told, indent=1) + "\n")
    write_page(inspection, plots, out / "index.html")
    for sentence in sentences:
        click.echo(f"- {sentence}")
    click.echo()
    print_table("The inputs", HEADER, input_rows(inspection), words=("input",))
    click.echo(f"{out / 'index.html'} has the plots, {out / 'report.json'} all numbers.")
