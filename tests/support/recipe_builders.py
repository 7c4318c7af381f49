"""Recipes as mappings, short to write in a test."""

from __future__ import annotations

from typing import Any

from support.checkpoints import Family

METHODS = ("drm", "knots_ties", "star")
"""The three papers' methods, for tests that hold for each of them."""


def recipe(method: str, family: Family, **parameters: Any) -> dict[str, Any]:
    """Merge a family's models with `method`; `parameters` are for all of them."""
    return {
        "merge_method": method,
        "base_model": str(family.base),
        "models": [{"model": str(path)} for path in family.tuned],
        "parameters": parameters,
    }


def per_input(recipe: dict[str, Any], **values: list[Any]) -> dict[str, Any]:
    """Give each model of `recipe` a value of its own for every parameter named."""
    models = [
        {**model, "parameters": {name: each[index] for name, each in values.items()}}
        for index, model in enumerate(recipe["models"])
    ]
    return {**recipe, "models": models}
