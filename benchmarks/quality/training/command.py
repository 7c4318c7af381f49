"""The command `train`: every checkpoint that is not there yet."""

from __future__ import annotations

from pathlib import Path

import click
import transformers

from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.training.fine_tunes import fine_tune, make_base
from benchmarks.quality.training.settings import Kind, Settings


def train_all(
    folder: Path, kinds: list[Kind], names: list[str], steps: int | None, seed: int, device: str
) -> None:
    """Train the checkpoints of the tasks `names`, or of all, that are not there yet.

    Raises:
        click.ClickException: a checkpoint of other settings is there, or the base cannot be had.
        click.UsageError: there is no task of that name.
    """
    if unknown := set(names) - set(TASKS):
        raise click.UsageError(f"there is no task {unknown.pop()!r} among {', '.join(TASKS)}")
    # The lines below report progress; transformers' own bars would interleave with them.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    checkpoints = Checkpoints(folder.expanduser().resolve())
    wanted = [
        Settings.default(kind, name, steps, seed) for kind in kinds for name in names or TASKS
    ]
    # All are looked at first, so that an hour's training does not end in an error.
    missing = [settings for settings in wanted if not checkpoints.is_finished(settings)]
    click.echo(f"{len(missing)} of {len(wanted)} checkpoints to train in {checkpoints.folder}")
    make_base(checkpoints)
    for number, settings in enumerate(missing, start=1):
        title = f"[{number}/{len(missing)}] {settings.kind} {settings.task}"

        def report(step: int, loss: float, title: str = title, steps: int = settings.steps) -> None:
            click.echo(f"{title}: step {step}/{steps}, loss {loss:.4f}")

        score = fine_tune(checkpoints, TASKS[settings.task], settings, device, report)
        click.echo(f"{title}: {score.accuracy:.0%} of {score.examples} test examples right")
