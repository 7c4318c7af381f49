"""The command `train`: every checkpoint that is not there yet."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.training.fine_tunes import fine_tune, make_base
from benchmarks.quality.training.settings import Kind, Settings
from mergekit_spectral.command_line.transformers_output import silence_transformers


def train_all(
    folder: Path, kinds: list[Kind], names: list[str], steps: int | None, seed: int, device: str
) -> None:
    """Train the checkpoints of the tasks `names` that are not there yet.

    Raises:
        click.ClickException: a checkpoint of other settings is there, or the base cannot be had.
    """
    silence_transformers()
    checkpoints = Checkpoints(folder)
    wanted = [Settings.default(kind, name, steps, seed) for kind in kinds for name in names]
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
