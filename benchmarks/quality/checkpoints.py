"""The folder with the base, the adapters and the full fine-tunes.

    base/         SmolLM2-135M-Instruct in bfloat16, as it is published
    lora/<task>/  an adapter in float32, and training.json with the record of its training
    full/<task>/  a whole model in float32, and the same record

A merge of full fine-tunes wants `dtype: float32`: mergekit reads all its inputs in that dtype, and
in bfloat16 most of a full fine-tune's update is rounded away.

An unfinished checkpoint has another name, in the same folder, until it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.quality.training.settings import Kind, Settings

ENVIRONMENT_VARIABLE = "MERGEKIT_SPECTRAL_CACHE"
RECORD = "training.json"


def default_folder() -> Path:
    """Return the folder that the environment names, or the one in the user's cache."""
    if folder := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(folder).expanduser()
    return Path.home() / ".cache" / "mergekit-spectral" / "quality"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in one folder."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def path(self, kind: str, task: str) -> Path:
        """Return where a checkpoint is or will be."""
        return self.folder / kind / task

    def copies(self, kind: str) -> Path:
        """Return where mergekit puts the merged copies that its own methods need of adapters."""
        return self.folder / "copies" / kind

    def merging(self, kind: str) -> Path:
        """Return where merges are while they are scored."""
        return self.folder / "merging" / kind

    def results(self, kind: str) -> Path:
        """Return where the records of merges are or will be."""
        return self.folder / "results" / kind

    def forget(self, kind: str, task: str) -> None:
        """Delete what was made of an earlier checkpoint of the same name.

        mergekit knows a copy by the adapter's path alone.
        """
        shutil.rmtree(self.copies(kind), ignore_errors=True)
        for record in self.results(kind).glob(f"*/*{task}*.json"):
            record.unlink()

    def is_finished(self, settings: Settings) -> bool:
        """Tell whether the checkpoint of these settings is there.

        Raises:
            click.ClickException: one of other settings is there.
        """
        path = self.path(settings.kind, settings.task)
        if not path.exists():
            return False
        made_with = read_record(path)["settings"]
        if made_with != asdict(settings):
            differing = {k: v for k, v in made_with.items() if v != asdict(settings).get(k)}
            raise click.ClickException(
                f"{path} was trained with other settings ({differing}); remove it or use another "
                f"--cache"
            )
        return True

    def require(self, kinds: Sequence[Kind], tasks: Sequence[str]) -> None:
        """Raise `click.ClickException` if a fine-tune of these kinds and tasks is missing."""
        for kind in kinds:
            for task in tasks:
                if not self.path(kind, task).exists():
                    raise click.ClickException(
                        f"there is no {kind} fine-tune of {task} in {self.folder}; make it with "
                        f"`python -m benchmarks.quality train --kind {kind} --task {task}`"
                    )


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Read the record of a checkpoint's training."""
    record: dict[str, Any] = json.loads((checkpoint / RECORD).read_text())
    return record


def write_record(checkpoint: Path, **record: Any) -> None:
    """Write the record of a checkpoint's training."""
    (checkpoint / RECORD).write_text(json.dumps(record, indent=1) + "\n")


@contextmanager
def completed(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` to fill, which takes its place once the body is done.

    What an earlier run left there unfinished is deleted.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    yield unfinished
    unfinished.rename(path)
