"""Run ``mergekit-spectral tune``: show its progress, and print what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.command_line.transformers_output import (
    silence_lm_eval,
    silence_transformers,
)
from mergekit_spectral.errors import needs_extra
from mergekit_spectral.tuning.summary import in_words, table
from mergekit_spectral.tuning.tune import PAGE, RECIPE, REPORT, tune


def tune_and_print(
    recipe: Path,
    data: Sequence[str],
    text: Sequence[Path],
    tasks: Sequence[str],
    *,
    out: Path,
    console: Console,
    **options: Any,
) -> None:
    """Tune a recipe, and print what was found, unless the command is to be quiet.

    Args:
        recipe: the recipe's file.
        data: files with examples, or ``FILE=INPUT``.
        text: files of text.
        tasks: names of tasks, each also ``NAME=INPUT``, with commas between, or YAML files.
        out: folder for the results.
        console: for the progress.
        options: further options of `tune`.

    Raises:
        MergeError: as `tune`.
    """
    silence_transformers()
    if tasks:
        silence_lm_eval()
    names = [name for value in tasks for name in value.split(",")]
    with progress(console) as say:
        tuning = tune(
            recipe,
            dict(map(split_input, data)),
            text,
            {str(name): trained for name, trained in map(split_input, names)},
            out=out,
            say=say,
            **options,
        )
    if is_quiet():
        return
    header, rows = table(tuning)
    print_table("On examples that were not used to choose", header, rows, words=header[:1])
    for sentence in in_words(tuning):
        click.echo(f"- {sentence}")
    click.echo(f"The recipe is {out / RECIPE}, and all numbers are in {out / REPORT}.")
    if (out / PAGE).exists():
        click.echo(f"{out / PAGE} shows all of it.")
    else:
        click.echo(f"{needs_extra('A page with plots', 'report')}.")


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Give a function that shows a sentence in place of the one before; in a pipe, one a line."""
    if not console.is_terminal:
        yield lambda sentence: console.print(sentence, markup=False, soft_wrap=True)
        return
    with console.status("reading the recipe") as status:
        yield lambda sentence: status.update(escape(sentence))


def split_input(data: str) -> tuple[Path, str | None]:
    """Split ``FILE=INPUT``. A file whose own name has a ``=`` is taken as it is."""
    file, equals, name = data.partition("=")
    if not equals or Path(data).exists():
        return Path(data), None
    return Path(file), name
