"""Run ``mergekit-spectral demo``: print its progress and its table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import click
import torch
from rich.console import Console

from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.demo import MODEL_NAME
from mergekit_spectral.demo.base_model import prepare_base_model
from mergekit_spectral.demo.recipes import Task, read_tasks
from mergekit_spectral.demo.run import STEPS, Row, run_demo


def run_and_print(work_folder: Path, console: Console) -> list[Row]:
    """Run the demo and print its table, unless the command is to be quiet.

    Args:
        work_folder: folder for everything that the demo writes, empty or with a stopped demo.
        console: for its progress.

    Returns:
        The table's rows.

    Raises:
        MergeError: the model cannot be downloaded, or a merge failed.
    """
    silence_transformers()
    start = time.perf_counter()
    rows = run_demo(work_folder, Steps(console, STEPS).step)
    if not is_quiet():
        print_rows(rows, read_tasks(), time.perf_counter() - start)
    return rows


def prepare_and_print(work_folder: Path, console: Console) -> None:
    """Write the base model, unless it is there, and print its folder.

    Args:
        work_folder: where recipes are run.
        console: for the progress.

    Raises:
        MergeError: the model cannot be downloaded, or its folder cannot be written to.
    """
    silence_transformers()
    with console.status(f"{MODEL_NAME}, from its GGUF file"):
        folder = prepare_base_model(work_folder)
    if not is_quiet():
        click.echo(folder)


class Steps:
    """Prints the current step with its number, and its time when it ends."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.done = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, then run the body."""
        self.done += 1
        number = f"[{self.done:>2}/{self.total}]".replace("[", "\\[")
        start = time.perf_counter()
        with self.console.status(f"{number} {title}"):
            yield
        self.console.print(f"{number} {title} [dim]{time.perf_counter() - start:.1f} s[/]")


def print_rows(rows: Sequence[Row], tasks: Sequence[Task], seconds: float) -> None:
    """Print the demo's result.

    Args:
        rows: one for each model.
        tasks: the columns.
        seconds: time that the whole demo took.
    """
    print_table(
        "SmolLM2-135M-Instruct: exact answers to held-out examples",
        ("model", *(task.title for task in tasks), "mean", "merge"),
        [
            (
                row.model,
                *(f"{a:.0%}" for a in (*row.accuracy, fmean(row.accuracy))),
                "" if row.seconds is None else f"{row.seconds:.1f} s",
            )
            for row in rows
        ],
        words=("model",),
        notes=(
            f"{len(tasks[0].data.examples)} examples a task, none of them trained on. The time of "
            "ties includes the merged copies that mergekit makes for its own methods.",
            "The tuned merge is chosen by other examples, and its time includes the tuning.",
            f"Everything took {seconds:.0f} s on {torch.get_num_threads()} threads.",
        ),
    )
