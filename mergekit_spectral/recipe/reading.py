"""Read a recipe as mergekit reads it, and find what is wrong in its text."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.recipe.findings import Finding, error, locate
from mergekit_spectral.recipe.sections import (
    Group,
    Section,
    base_models,
    groups,
    references,
    sections,
)
from mergekit_spectral.recipe.text import MISSING, Key, RecipeText, dotted
from mergekit_spectral.recipe.unknown_keys import find_unknown_keys

RecipeLike = str | os.PathLike[str] | Mapping[str, Any] | MergeConfiguration
"""A recipe: the path of its file; its text, which is a string with a line break; the values of the
text as Python has them; or mergekit's own object."""

UNNAMED = Path("recipe")
"""What messages call a recipe that is not in a file."""

_NESTED = "the recipe is nested too deeply, or contains itself."


@dataclass(frozen=True)
class Recipe:
    """A recipe: its text, and what mergekit reads in it.

    Attributes:
        path: the file; `UNNAMED` for a recipe that is not in a file.
        text: the text, with lines.
        config: the recipe as mergekit has it.
        sections: all sections of parameters that it may have.
        groups: the lists of models that are merged with one another.
        references: the models that it names, each with the place where it is named first.
        base_models: the models that inputs are compared to.
    """

    path: Path
    text: RecipeText
    config: MergeConfiguration
    sections: tuple[Section, ...]
    groups: tuple[Group, ...]
    references: dict[ModelReference, Key]
    base_models: set[ModelReference]

    @classmethod
    def of(cls, path: Path, text: RecipeText, config: MergeConfiguration) -> Recipe:
        """Go through a recipe that mergekit has read."""
        return cls(
            path=path,
            text=text,
            config=config,
            sections=tuple(sections(config)),
            groups=tuple(groups(config)),
            references=references(config),
            base_models=base_models(config),
        )


@dataclass(frozen=True)
class Reading:
    """What came of reading a recipe.

    Attributes:
        path: as a `Recipe` has it.
        recipe: the recipe; None if mergekit would not read it.
        findings: about the text, with their lines.
    """

    path: Path
    recipe: Recipe | None
    findings: tuple[Finding, ...]


def read_recipe(recipe: RecipeLike) -> Reading:
    """Read a recipe.

    Raises:
        MergeError: the file is missing or cannot be read.
    """
    path, read = _find_source(recipe)
    text, failure = _read_text(read)
    if text is None:
        return Reading(path, None, (failure,) if failure else ())
    findings = [
        Finding(
            "warning",
            f"`{dotted(key)}` is listed more than once, and only the last one has an effect.",
            key,
            line,
        )
        for key, line in text.repeated()
    ]
    config, more = _parse(text)
    findings += more
    found = Recipe.of(path, text, config) if config else None
    return Reading(path, found, tuple(locate(findings, text)))


def _find_source(recipe: RecipeLike) -> tuple[Path, Callable[[], str]]:
    """Return what messages call a recipe, and what reads its text."""
    if isinstance(recipe, MergeConfiguration):
        return UNNAMED, lambda: recipe.to_yaml() + "\n"
    if isinstance(recipe, Mapping):
        return UNNAMED, partial(_dump, recipe)
    if isinstance(recipe, str) and "\n" in recipe:
        return UNNAMED, lambda: recipe
    path = Path(recipe)
    return path, partial(_read_file, path)


def _dump(values: Mapping[str, Any]) -> str:
    text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """A dumper that takes paths, too."""


_Dumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))


def _read_file(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as missing:
        raise MergeError(
            f"Recipe {path} not found (working directory {Path.cwd()}); give a recipe's file, its "
            "text, or a mapping."
        ) from missing
    except OSError as failure:
        name = failure.filename or path
        raise MergeError(f"The recipe cannot be read ({name}: {failure.strerror}).") from failure
    return content.decode("utf-8")


def _read_text(read: Callable[[], str]) -> tuple[RecipeText | None, Finding | None]:
    try:
        source = read()
    except UnicodeDecodeError:
        return None, error("the recipe is not text in UTF-8.")
    except yaml.YAMLError as problem:
        what = " ".join(map(str, problem.args))
        return None, error(f"the recipe has a value that YAML does not have: {what}.")
    try:
        return RecipeText(source), None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = mark.line + 1 if mark else None
        what = " ".join(filter(None, (problem.context, problem.problem)))
        return None, Finding("error", f"the recipe is not YAML: {what}.", line=line)
    except (yaml.YAMLError, ValueError) as problem:
        return None, error(f"the recipe is not YAML: {first_line(problem)}.")
    except RecursionError:
        return None, error(_NESTED)


def _parse(text: RecipeText) -> tuple[MergeConfiguration | None, list[Finding]]:
    if not isinstance(text.values, dict):
        return None, [error("the recipe is not a mapping of keys to values.")]
    try:
        findings = list(find_unknown_keys(text.values))
    except RecursionError:
        return None, [error(_NESTED)]
    try:
        return MergeConfiguration.model_validate(text.values), findings
    except ValidationError as refusal:
        return None, [*findings, *_explain(refusal, text)]
    except RuntimeError as refusal:
        return None, [*findings, error(f"{first_line(refusal)}.")]


def _explain(refusal: ValidationError, text: RecipeText) -> Iterator[Finding]:
    """Yield one finding for each place at which pydantic refuses a recipe."""
    found: dict[Key, list[str]] = defaultdict(list)
    for one in refusal.errors():
        found[_place(text, one)].append(one["msg"])
    for key, messages in found.items():
        value = text.at(key)
        what = messages[0] if len(messages) == 1 else "has a form that mergekit cannot read"
        got = "" if value is MISSING else f", got {'nothing' if value is None else repr(value)}"
        yield error(f"`{dotted(key) or 'the recipe'}`: {what}{got}.", key)


def _place(text: RecipeText, problem: ErrorDetails) -> Key:
    """Return where pydantic found an error, without the names of the types that it tried."""
    key: Key = ()
    for part in problem["loc"]:
        if text.at((*key, part)) is MISSING:
            # A key that is missing is named itself, as the text has no other place for it.
            missing = problem["type"] == "missing" and part == problem["loc"][-1]
            return (*key, part) if missing else key
        key = (*key, part)
    return key
