"""A recipe's file, read as mergekit reads it, with what is wrong in it by line."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import yaml
from mergekit.config import MergeConfiguration
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mergekit_spectral.checking.keys import check_keys
from mergekit_spectral.errors import first_line
from mergekit_spectral.recipe.findings import Finding, Findings
from mergekit_spectral.recipe.text import NOTHING, Key, RecipeText, dotted

_NESTED = "the file is nested too deeply, or in itself."


def read_recipe(recipe: Path) -> tuple[MergeConfiguration | None, Findings]:
    """Return a recipe, or None if mergekit would not read it, with what is wrong in it."""
    text, findings = _text(recipe)
    if text is None:
        return None, findings
    for key, line in text.repeated():
        told = f"`{dotted(key)}` stands here for the second time, and only the last counts."
        findings.all.append(Finding("warning", told, dotted(key), line))
    if not isinstance(text.values, dict):
        findings.error("the recipe is not a mapping of keys to values.")
        return None, findings
    try:
        check_keys(text.values, findings)
    except RecursionError:
        findings.error(_NESTED)
        return None, findings
    return _parsed(text, findings), findings


def _text(recipe: Path) -> tuple[RecipeText | None, Findings]:
    findings = Findings(None)
    try:
        findings.text = RecipeText(recipe.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        findings.error("the file is not text in UTF-8.")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else None
        what = " ".join(filter(None, (error.context, error.problem)))
        findings.all.append(Finding("error", f"the file is not YAML: {what}.", "", line))
    except (yaml.YAMLError, ValueError) as error:
        findings.error(f"the file is not YAML: {first_line(error)}.")
    except RecursionError:
        findings.error(_NESTED)
    return findings.text, findings


def _parsed(text: RecipeText, findings: Findings) -> MergeConfiguration | None:
    try:
        return MergeConfiguration.model_validate(text.values)
    except ValidationError as error:
        found: dict[Key, list[str]] = defaultdict(list)
        for one in error.errors():
            found[_there(text, one)].append(one["msg"])
        for key, messages in found.items():
            value = text.at(key)
            told = messages[0] if len(messages) == 1 else "is of no form that mergekit reads"
            got = "" if value is NOTHING else f", got {'nothing' if value is None else repr(value)}"
            findings.error(f"`{dotted(key) or 'the recipe'}`: {told}{got}.", key)
    except RuntimeError as error:
        findings.error(f"{first_line(error)}.")
    return None


def _there(text: RecipeText, error: ErrorDetails) -> Key:
    """Return where pydantic found an error, without the names of types that it tried."""
    key: Key = ()
    for part in error["loc"]:
        if text.at((*key, part)) is NOTHING:
            # What is missing has no place but its own.
            return (*key, part) if error["type"] == "missing" and part == error["loc"][-1] else key
        key = (*key, part)
    return key
