"""Write the recommended recipe: a recipe's text with another method, parameters and inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from mergekit.common import ModelReference

from mergekit_spectral.host.recipe_check import find_method


@dataclass(frozen=True)
class RecipeChanges:
    """What is changed in a recipe.

    Attributes:
        method: name of the new method.
        settings: values of parameters of the whole recipe, by name.
        weights: `weight` of each input, by the input's name; empty to leave weights as they are.
        dropped: names of the inputs that are left out.
        reasons: comment lines at the top of the recipe.
    """

    method: str
    settings: Mapping[str, float]
    weights: Mapping[str, float] = field(default_factory=dict)
    dropped: Collection[str] = ()
    reasons: Collection[str] = ()


def change_recipe(text: str, changes: RecipeChanges) -> str:
    """Return a recipe's text with another method, parameters and inputs.

    Parameters that the new method does not have are removed. Comments of the text are lost.

    Args:
        text: a recipe that mergekit can read.
        changes: the changes.
    """
    recipe: dict[str, Any] = yaml.safe_load(_dump(yaml.safe_load(text)))  # without aliases
    method = find_method(changes.method)
    assert method is not None
    known = {parameter.name for parameter in method.spec.parameters}
    recipe["merge_method"] = changes.method
    for inputs in _inputs(recipe):
        inputs[:] = [each for each in inputs if _name(each) not in changes.dropped]
        for each in inputs:
            if _name(each) in changes.weights:
                each.setdefault("parameters", {})["weight"] = changes.weights[_name(each)]
    for section in _sections(recipe):
        settings = section.get("parameters") or {}
        kept = {k: v for k, v in settings.items() if k in known and k not in changes.settings}
        if section is recipe:
            kept |= changes.settings
        if kept:
            section["parameters"] = kept
        else:
            section.pop("parameters", None)
    comments = "".join(f"# {line}\n" for line in changes.reasons)
    return comments + _dump(recipe)


def _dump(recipe: dict[str, Any]) -> str:
    return yaml.dump(recipe, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=1000)


class _Plain(yaml.SafeDumper):
    """A dumper that writes repeated values out, and lists indented under their key."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _inputs(recipe: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Yield all lists of models that are merged with one another."""
    for part in (recipe, *(recipe.get("modules") or {}).values()):
        if part.get("models"):
            yield part["models"]
        for one in part.get("slices") or []:
            yield one["sources"]


def _sections(recipe: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield all mappings that may have ``parameters:``."""
    yield recipe
    for part in (recipe, *(recipe.get("modules") or {}).values()):
        if part is not recipe:
            yield part
        yield from part.get("slices") or []
    for inputs in _inputs(recipe):
        yield from inputs


def _name(model: dict[str, Any]) -> str:
    """Return a model's name as an inspection has it."""
    return str(ModelReference.model_validate(model["model"]))
