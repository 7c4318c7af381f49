"""The recommended recipe: another method, its own parameters, and some inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from mergekit.config import MergeConfiguration
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from support.recipe_builders import recipe as plain_recipe

from mergekit_spectral.inspecting.recipe_text import RecipeChanges, change_recipe


def changed(text: str, **changes: Any) -> dict[str, Any]:
    settings = {"method": "iso", "settings": {"lambda": 0.4}, **changes}
    result: dict[str, Any] = yaml.safe_load(change_recipe(text, RecipeChanges(**settings)))
    MergeConfiguration.model_validate(result)
    return result


RECIPE = """
merge_method: ties
base_model: lab/base
models:
  - model: lab/a
    parameters: {weight: 0.5, density: 0.3}
  - model: lab/b
    parameters: {density: 0.4}
  - model: lab/c+lab/adapter
parameters: {density: 0.5, lambda: 1.0, normalize: true, int8_mask: true}
dtype: bfloat16
tokenizer: {source: union}
"""


def test_parameters_that_the_method_lacks_are_removed():
    assert changed(RECIPE) == {
        "merge_method": "iso",
        "base_model": "lab/base",
        "models": [
            {"model": "lab/a", "parameters": {"weight": 0.5}},
            {"model": "lab/b"},
            {"model": "lab/c+lab/adapter"},
        ],
        "parameters": {"normalize": True, "lambda": 0.4},
        "dtype": "bfloat16",
        "tokenizer": {"source": "union"},
    }


def test_weights_and_dropped_inputs():
    result = changed(RECIPE, weights={"lab/c+lab/adapter": 0.2}, dropped=["lab/b"])
    assert result["models"] == [
        {"model": "lab/a", "parameters": {"weight": 0.5}},
        {"model": "lab/c+lab/adapter", "parameters": {"weight": 0.2}},
    ]


def test_reasons_are_comments():
    text = change_recipe(RECIPE, RecipeChanges("iso", {"lambda": 1.0}, reasons=["One.", "Two."]))
    assert text.startswith("# One.\n# Two.\nmerge_method: iso\n")
    assert "\n  - model: lab/b\n" in text


def test_slices_and_modules():
    slices = """
merge_method: drm
base_model: lab/base
modules:
  text:
    parameters: {density: 0.1}
    slices:
      - sources:
          - {model: lab/a, layer_range: [0, 2], parameters: {density: 0.1, weight: 2}}
          - {model: lab/b, layer_range: [0, 2]}
        parameters: {lambda: 2, renormalize: false}
"""
    part = changed(slices, dropped=["lab/b"])["modules"]["text"]
    (source,) = part["slices"][0]["sources"]
    assert source == {"model": "lab/a", "layer_range": [0, 2], "parameters": {"weight": 2}}
    # The new λ holds for all slices.
    assert set(part) == {"slices"}
    assert set(part["slices"][0]) == {"sources"}


def test_shared_sections_are_changed_apart():
    shared = """
merge_method: drm
base_model: lab/base
models:
  - {model: lab/a, parameters: &p {weight: 1.0}}
  - {model: lab/b, parameters: *p}
"""
    result = changed(shared, weights={"lab/a": 0.5})
    assert [each["parameters"] for each in result["models"]] == [{"weight": 0.5}, {"weight": 1.0}]


def test_the_recipe_runs(tmp_path: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.llama(), count=2)
    written = yaml.safe_dump(plain_recipe("ties", family, density=0.5, weight=1.0))
    recipe = changed(
        written, method="tsvm", settings={"lambda": 1.0}, weights={str(family.tuned[0]): 0.5}
    )
    merged = checkpoints.tensors(mergekit_yaml(recipe, tmp_path / "out"))
    base = checkpoints.tensors(Family(family.base, ()).base)
    assert any(not tensor.equal(base[name]) for name, tensor in merged.items())
