"""Run ``mergekit-spectral run``: show its progress, and print what the merge took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mergekit.common import parse_kmb
from mergekit.options import MergeOptions
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from mergekit_spectral.checking.estimate import gigabytes
from mergekit_spectral.checking.report import duration
from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.errors import MergeError
from mergekit_spectral.scaling import Progress, Summary, merge


def run_and_print(
    recipe: Path,
    out: Path,
    *,
    workers: int | None,
    ray: str | None,
    restart: bool,
    out_shard_size: str,
    console: Console,
    verbose: bool,
    **options: Any,
) -> None:
    """Merge a recipe, show how far it has come, and print a summary.

    Args:
        recipe: the recipe's file.
        out: for the merged model.
        workers: as `mergekit_spectral.merge`.
        ray: address of a Ray cluster, empty to start one, None not to use Ray.
        restart: as `mergekit_spectral.merge`.
        out_shard_size: as mergekit has it.
        console: for the progress.
        verbose: whether to print a line for each part.
        options: of mergekit.

    Raises:
        MergeError: as `mergekit_spectral.merge`.
    """
    if ray is not None and workers is not None:
        raise MergeError("--workers is for this machine; the cluster decides itself with --ray.")
    silence_transformers()
    try:
        shard_size = parse_kmb(out_shard_size)
    except (ValueError, RuntimeError) as error:
        raise MergeError(
            f"--out-shard-size {out_shard_size} is not a size such as 5B or 500M."
        ) from error
    given = MergeOptions(**options, out_shard_size=shard_size, quiet=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("planning", total=1.0)

        def show(progress: Progress) -> None:
            left = progress.seconds_left
            time_left = "" if left is None else f", {duration(left)} left"
            line = f"{progress.weights} of {progress.of} weights{time_left}"
            bar.update(task, description=line, completed=progress.share)
            if progress.done is not None and verbose:
                done = progress.done
                console.print(
                    f"{done.worker}: {len(done.part.names)} weights from {done.part.names[0]} on "
                    f"in {duration(done.seconds)}, {gigabytes(done.peak_bytes)}",
                    markup=False,
                    soft_wrap=True,
                )
            if not console.is_terminal and not is_quiet():
                console.print(f"{line} ({progress.share:.0%})", markup=False, soft_wrap=True)

        try:
            summary = merge(
                recipe,
                out,
                given,
                workers=workers,
                ray=False if ray is None else ray or True,
                restart=restart,
                progress=show,
                say=lambda remark: console.print(remark, markup=False, soft_wrap=True),
            )
        except KeyboardInterrupt:
            console.print("Stopped. Run the same command again to continue.", markup=False)
            raise
    if not is_quiet():
        click.echo(in_words(summary, out))


def in_words(summary: Summary, out: Path) -> str:
    """Return a summary as a sentence."""
    kept = f" ({summary.continued} of them before)" if summary.continued else ""
    workers = "on a Ray cluster" if summary.workers is None else f"with {summary.workers} workers"
    if summary.workers == 1:
        workers = "with one worker"
    in_worker = ""
    if summary.workers != 1 and summary.worker_bytes:  # none if all was merged before
        in_worker = f" and {gigabytes(summary.worker_bytes)} in a worker"
    how = ""
    if summary.counts is not None:
        how = f" {'This time' if kept else 'Merged'}: {summary.counts}."
    return (
        f"Merged {summary.weights} weights{kept} into {out} in {duration(summary.seconds)} "
        f"{workers}: read {gigabytes(summary.read_bytes)}, wrote "
        f"{gigabytes(summary.written_bytes)}; at most {gigabytes(summary.peak_bytes)} of memory "
        f"here{in_worker}, with pages of mapped files.{how}"
    )
