"""Which tasks of lm-eval a tuning scores, by name or in a file of mergekit-evolve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from mergekit_spectral.errors import MergeError, first_line


@dataclass(frozen=True)
class NamedTask:
    """A task, or a group of tasks, as the user names it.

    Attributes:
        name: in lm-eval.
        input: the input that was trained for it, by name or number, if that is given.
        metric: with its filter, as ``exact_match,strict-match``, or without it; None for the
            task's usual one.
        weight: in the mean of the data sets.
    """

    name: str
    input: str | None = None
    metric: str | None = None
    weight: float = 1.0


class _Entry(BaseModel):
    """An entry of ``tasks:``, as mergekit-evolve reads it."""

    name: str
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    metric: str = "acc,none"

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class _File(BaseModel):
    tasks: list[_Entry] = Field(min_length=1)


def named_tasks(names: Iterable[tuple[str, str | None]]) -> Iterator[NamedTask]:
    """Yield the tasks of names and of files.

    Args:
        names: of tasks, or paths of YAML files with ``tasks:``; each with the input that was
            trained for it, or None.

    Raises:
        MergeError: a file cannot be read, or has no such list.
    """
    for name, trained in names:
        path = Path(name)
        if path.suffix not in (".yml", ".yaml"):
            yield NamedTask(name, trained)
            continue
        for entry in _read(path).tasks:
            yield NamedTask(entry.name, trained, entry.metric, entry.weight)


def _read(path: Path) -> _File:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MergeError(
            f"{path} not found (working directory {Path.cwd()}); give a file with `tasks:`, or the "
            "name of a task of lm-eval."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MergeError(f"{path} cannot be read ({first_line(error)}).") from error
    if not isinstance(content, dict) or "tasks" not in content:
        raise MergeError(
            f"{path} has no `tasks:`, as a file of mergekit-evolve has; to score one task, give "
            "its name, and its file's folder with --task-search-path."
        )
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise MergeError(
            f"{path}: `{place}` is {first['input']!r} ({first['msg']}); each task is a name, or "
            "`{name: …, weight: …, metric: …}` with a weight above 0."
        ) from error
