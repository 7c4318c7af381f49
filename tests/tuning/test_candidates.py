"""Candidates: what they change in a recipe, and the recipes that are merged for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mergekit_spectral.errors import MergeError
from mergekit_spectral.recipe.reading import read_recipe
from mergekit_spectral.tuning.candidates import Candidate, TunedRecipe, candidates, times

PLAIN = """\
merge_method: ties
base_model: base
models:
  - model: one
    parameters: {weight: 1.0, density: 0.5}
  - model: two
    parameters: {weight: 0.5, density: 0.3}
"""
GRADIENT = PLAIN + "parameters: {lambda: [0.5, 1.0]}\n"
FILTER = PLAIN + "parameters: {lambda: [{filter: mlp, value: 0.5}, {value: 1.0}]}\n"
NUMBER = PLAIN + "parameters:\n  lambda: 0.7\n"


@pytest.fixture
def read(tmp_path: Path):
    def read_text(text: str) -> TunedRecipe:
        path = tmp_path / "recipe.yml"
        path.write_text(text)
        recipe = read_recipe(path).recipe
        assert recipe is not None
        return TunedRecipe(recipe)

    return read_text


def test_the_recipe_itself_changes_nothing(read: Any):
    for text, scale in ((NUMBER, 0.7), (GRADIENT, 1.0), (FILTER, 1.0)):
        recipe = read(text)
        assert recipe.own_scale == scale
        assert recipe.changes(recipe.own, recipe.own_scale) == {}


def test_lambda_is_added_where_the_recipe_has_none(read: Any):
    recipe = read(PLAIN)
    assert recipe.own_scale == 1.0
    assert recipe.changes(recipe.own, 0.4) == {("parameters", "lambda"): 0.4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NUMBER, 0.4),
        (GRADIENT, [0.2, 0.4]),
        (FILTER, [{"filter": "mlp", "value": 0.2}, {"value": 0.4}]),
    ],
)
def test_scales(read: Any, text: str, expected: Any):
    recipe = read(text)
    assert recipe.changes(recipe.own, 0.4) == {("parameters", "lambda"): expected}
    assert recipe.scales_lambda == (text != NUMBER)


def test_merges_are_made_at_a_scale_of_1(read: Any):
    assert read(NUMBER).config(Candidate("ties")).parameters["lambda"] == 1.0
    assert read(GRADIENT).config(Candidate("ties")).parameters["lambda"] == [0.5, 1.0]


def test_method_density_and_weights(read: Any):
    recipe = read(NUMBER)
    changes = recipe.changes(Candidate("drm", 0.2, weights=(1.5, 1.0)), 0.7)
    assert changes == {
        ("merge_method",): "drm",
        ("models", 0, "parameters", "density"): 0.2,
        ("models", 1, "parameters", "density"): 0.2,
        ("models", 0, "parameters", "weight"): 1.5,
    }
    config = recipe.config(Candidate("drm", 0.2, weights=(1.5, 1.0)))
    assert config.merge_method == "drm"
    assert [model.parameters["weight"] for model in config.models] == [1.5, 0.5]


def test_weights_of_a_recipe_with_one_for_all(read: Any):
    recipe = read(
        "merge_method: ties\nbase_model: base\nmodels: [{model: one}, {model: two}]\n"
        "parameters: {weight: 0.5}\n"
    )
    assert recipe.changes(Candidate("ties", weights=(2.0, 1.0)), 1.0) == {
        ("models", 0, "parameters", "weight"): 1.0,
        ("models", 1, "parameters", "weight"): 0.5,
    }


def test_a_method_that_needs_weights_gets_them(read: Any):
    recipe = read("merge_method: drm\nbase_model: base\nmodels: [{model: one}]\n")
    assert recipe.changes(recipe.own, 1.0) == {}
    assert recipe.changes(Candidate("ties"), 1.0) == {
        ("merge_method",): "ties",
        ("parameters", "weight"): 1.0,
    }


def test_weights_are_completed_for_a_method_that_needs_them(read: Any):
    recipe = read(
        "merge_method: drm\nbase_model: base\n"
        "models: [{model: one, parameters: {weight: 0.5}}, {model: two}]\n"
    )
    assert recipe.changes(recipe.own, 1.0) == {}
    assert recipe.changes(Candidate("ties"), 1.0) == {
        ("merge_method",): "ties",
        ("parameters", "weight"): 1.0,
    }
    assert recipe.config(Candidate("ties")).models[0].parameters == {"weight": 0.5}
    weighed = recipe.changes(Candidate("ties", weights=(2.0, 3.0)), 1.0)
    assert weighed["models", 0, "parameters", "weight"] == 1.0
    assert weighed["models", 1, "parameters", "weight"] == 3.0


def test_a_method_without_lambda_has_none_added(read: Any):
    recipe = read(PLAIN.replace("ties", "sce"))
    assert recipe.changes(recipe.own, 1.0) == {}


def test_candidates_are_combinations_and_the_recipe_itself(read: Any):
    recipe = read(PLAIN)
    assert candidates(recipe, (), {}) == [Candidate("ties")]
    assert candidates(recipe, ("drm", "star"), {"density": (0.2, 1.0), "rank": ()}) == [
        Candidate("ties"),
        Candidate("drm", 0.2),
        Candidate("drm", 1.0),
        Candidate("star"),
    ]


def test_ranks_are_combined_with_densities(read: Any):
    recipe = read(PLAIN)
    values = {"density": (0.2, 1.0), "rank": (0.25, 512)}
    assert candidates(recipe, ("drm", "ties", "star"), values) == [
        Candidate("ties"),
        *(Candidate("drm", density, rank) for density in (0.2, 1.0) for rank in (0.25, 512)),
        Candidate("ties", 0.2),
        Candidate("ties", 1.0),
        Candidate("star"),
    ]
    assert len({each.name for each in candidates(recipe, ("drm",), values)}) == 5
    assert str(Candidate("drm", 0.2, 512)) == "drm, density 0.2, rank 512"
    assert recipe.changes(Candidate("drm", rank=0.25), 1.0) == {
        ("merge_method",): "drm",
        ("parameters", "rank"): 0.25,
    }


def test_values_that_no_method_has(read: Any):
    with pytest.raises(MergeError, match="`--rank`: ties has no parameter `rank`"):
        candidates(read(PLAIN), (), {"rank": (0.25,), "density": (0.2,)})
    with pytest.raises(MergeError, match="`--density`: iso and star have no parameter"):
        candidates(read(PLAIN), ("iso", "star"), {"density": (0.2,)})


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["drn"], "`--methods`: there is no merge method drn; did you mean drm?"),
        (["passthrough"], "`--methods`: passthrough does not merge differences to a base model"),
    ],
)
def test_methods_that_cannot_be_tuned(read: Any, methods: list[str], message: str):
    with pytest.raises(MergeError) as caught:
        candidates(read(PLAIN), methods, {})
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("base_model: base\n", ""), "it names no model."),
        (PLAIN.replace("base_model: base", "base_model: base+lora"), "a base with an adapter"),
        (PLAIN + "parameters: {lambda: [0, 0]}\n", "`lambda` is 0, which cannot be scaled"),
    ],
)
def test_recipes_that_cannot_be_tuned(read: Any, text: str, message: str):
    with pytest.raises(MergeError) as caught:
        read(text)
    assert message in caught.value.message


def test_times_keeps_the_form_of_a_setting():
    setting = yaml.safe_load("[{filter: mlp, value: [1, 0.5]}, 0.3]")
    assert times(setting, 0.5) == [{"filter": "mlp", "value": [0.5, 0.25]}, 0.15]
