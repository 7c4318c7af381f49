"""Results of fine-tunes and merges, compact enough to be kept in the repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

import click
from pydantic import TypeAdapter, ValidationError

from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.merging.plan import plan
from benchmarks.quality.training.settings import Kind

Setting = Literal["published", "tuned"]
SETTINGS: tuple[Setting, ...] = ("published", "tuned")

T = TypeVar("T")


@dataclass(frozen=True)
class FineTune:
    """A fine-tune, scored on its own task's test examples.

    Attributes:
        kind: of checkpoint.
        task: that it was trained on.
        base: the base's accuracy, 0 to 1.
        accuracy: its own.
        loss: at the end of the training.
        seconds: that the training took.
    """

    kind: Kind
    task: str
    base: float
    accuracy: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class MergeOutcome:
    """A merge, scored on its tasks' test examples.

    Attributes:
        kind: of the fine-tunes.
        method: by the name that `method_named` knows.
        tasks: whose fine-tunes.
        seed: of what is random in the method.
        scales: λ at each setting.
        normalized: at each setting, by task, the accuracy over that of the task's own fine-tune.
        validation: by λ, the mean normalized accuracy on the validation examples.
        seconds: that `mergekit-yaml` took.
    """

    kind: Kind
    method: str
    tasks: tuple[str, ...]
    seed: int
    scales: dict[Setting, float]
    normalized: dict[Setting, dict[str, float]]
    validation: dict[float, float]
    seconds: float

    @property
    def merge(self) -> Merge:
        """What was merged."""
        return Merge(self.kind, self.method, self.tasks, self.seed)

    def mean(self, setting: Setting) -> float:
        """Return the mean normalized accuracy over the tasks."""
        return fmean(self.normalized[setting].values())


@dataclass(frozen=True)
class Planned:
    """What a whole run makes: fine-tunes of each kind and task, and the merges of `plan`."""

    kinds: tuple[Kind, ...]
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    sizes: tuple[int, ...]
    subsets: int

    def fine_tunes(self) -> list[tuple[Kind, str]]:
        """List kinds and tasks of all fine-tunes."""
        return [(kind, task) for kind in self.kinds for task in self.tasks]

    def merges(self) -> Iterator[Merge]:
        """List all merges."""
        return plan(self.kinds, self.methods, self.tasks, self.sizes, self.subsets)


@dataclass(frozen=True)
class Outcomes:
    """All that is known, whether or not it is all that was planned.

    Attributes:
        planned: a whole run.
        measured_on: the machines and versions, each once.
        fine_tunes: in the plan's order.
        merges: by kind, method, number of tasks, tasks and seed, in the plan's order.
    """

    planned: Planned
    measured_on: tuple[dict[str, Any], ...]
    fine_tunes: tuple[FineTune, ...]
    merges: tuple[MergeOutcome, ...]


def write_lines(path: Path, kind: type[T], figures: T) -> None:
    """Write a dataclass as JSON, its lists with one line for each entry.

    Args:
        path: of the file, in a folder that need not be there yet.
        kind: the dataclass.
        figures: its instance.
    """
    fields = TypeAdapter(kind).dump_python(figures, mode="json")
    parts = []
    for name, value in fields.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            parts.append(f' "{name}": [\n{lines}\n ]')
        else:
            parts.append(f' "{name}": {json.dumps(value)}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def read_lines(path: Path, kind: type[T]) -> T:
    """Read what `write_lines` wrote.

    Raises:
        click.ClickException: there is no such file, or it holds something else.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_text())
    except FileNotFoundError:
        raise click.ClickException(f"there is no file {path}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise click.ClickException(
            f"{path} is not a file of results of this command: {where}: {first['msg']}"
        ) from None
