"""A TIES recipe in which only the word after `merge_method` changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from support.expected import assert_merged
from support.recipe_builders import recipe

EXACT = (
    "drm",
    "star",
    "iso",
    "tsvm",
    "actmat",
    "knots",
    "knots_ties",
    "knots_task_arithmetic",
    "knots_breadcrumbs",
    "knots_breadcrumbs_ties",
)
RANDOM = ("knots_dare_ties", "knots_dare_linear", "knots_della", "knots_della_linear")


def ties_recipe(family: Family) -> dict[str, Any]:
    """A recipe as people write them, with all that TIES has."""
    first, second, third = family.tuned
    return {
        "merge_method": "ties",
        "base_model": str(family.base),
        "models": [
            {"model": str(first), "parameters": {"density": [0.8, 0.7, 0.4], "weight": 1.0}},
            {"model": str(second), "parameters": {"density": 0.5, "weight": [0.3, 0.7, 1]}},
            {
                "model": str(third),
                "parameters": {
                    "density": 0.33,
                    "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0.2}],
                },
            },
        ],
        "parameters": {"normalize": True, "int8_mask": True},
        "dtype": "float32",
    }


def meant(method: str, name: str) -> dict[str, Any]:
    """What `ties_recipe` means for `method` and the weight `name`."""
    match = re.search(r"layers\.(\d+)\.", name)
    layer = int(match[1]) if match else 0
    weights = [1.0, [0.3, 0.7, 1.0][layer], 0.5 if "mlp" in name else 0.2]
    parameters = {"weights": weights, "normalize": True}
    if method not in ("star", "iso", "tsvm", "actmat"):
        parameters["density"] = [[0.8, 0.7, 0.4][layer], 0.5, 0.33]
    return parameters


@pytest.mark.parametrize("method", EXACT)
def test_means_what_the_method_defines(method: str, llama: Family, out: Path):
    mergekit_yaml({**ties_recipe(llama), "merge_method": method}, out)
    assert_merged(out, llama, method, lambda name: meant(method, name))


@pytest.mark.parametrize("method", RANDOM)
def test_random_methods_repeat_themselves_from_one_seed(method: str, llama: Family, out: Path):
    swapped = {**ties_recipe(llama), "merge_method": method}
    first, second, other = (
        checkpoints.tensors(mergekit_yaml(swapped, out.parent / name, "--random-seed", seed))
        for name, seed in [("first", "7"), ("second", "7"), ("other", "8")]
    )
    base = checkpoints.tensors(llama.base)
    for name, tensor in first.items():
        assert tensor.isfinite().all(), name
        assert torch.equal(tensor, second[name]), name
        assert not torch.equal(tensor, base[name]), name
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


@pytest.mark.parametrize("method", RANDOM)
def test_random_methods_at_density_1(method: str, llama: Family, out: Path):
    mergekit_yaml(recipe(method, llama, density=1.0), out)
    assert_merged(out, llama, method)
