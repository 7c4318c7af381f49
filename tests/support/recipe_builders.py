"""Build recipes as mappings."""

from __future__ import annotations

from typing import Any

from support.checkpoints import Family

METHODS = ("drm", "knots_ties", "star", "iso", "tsvm", "actmat")
"""One method of each paper, for tests that apply to all of them."""


def recipe(method: str, family: Family, **parameters: Any) -> dict[str, Any]:
    """Return a recipe that merges a family's models; `parameters` are those of the whole recipe."""
    return {
        "merge_method": method,
        "base_model": str(family.base),
        "models": [{"model": str(path)} for path in family.tuned],
        "parameters": parameters,
    }


def per_input(recipe: dict[str, Any], **values: list[Any]) -> dict[str, Any]:
    """Return `recipe` with parameters of each model; every list has one value for each model."""
    models = [
        {**model, "parameters": {name: each[index] for name, each in values.items()}}
        for index, model in enumerate(recipe["models"])
    ]
    return {**recipe, "models": models}
