from __future__ import annotations

from typing import Any

import pytest
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import get

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.recipe_check import require_valid_recipe

MODELS = "models: [{model: base}, {model: a, parameters: {weight: 1}}, {model: b}]"
# Where a parameter may stand, with {} for its value.
PLACES = {
    "top": f"{MODELS}\nbase_model: base\nparameters: {{density: {{}}}}",
    "model": "models: [{model: a, parameters: {density: {}}}, {model: b}]\nbase_model: base",
    "slice": "slices: [{sources: [{model: a, layer_range: [0, 2]}], parameters: {density: {}}}]\n"
    "base_model: base",
    "source": "slices: [{sources: [{model: a, layer_range: [0, 2], parameters: {density: {}}}]}]\n"
    "base_model: base",
    "module": "modules: {text: {models: [{model: a}], parameters: {density: {}}}}\n"
    "base_model: base",
    "module model": "modules: {text: {models: [{model: a, parameters: {density: {}}}]}}\n"
    "base_model: base",
}
SETTINGS = {
    "plain": "{}",
    "gradient": "[1, 0.7, {}]",
    "filter": "[{filter: mlp, value: {}}, {value: 0.5}]",
    "gradient in a filter": "[{filter: mlp, value: [0.5, {}]}, {value: 0.5}]",
}


def check(recipe: str, method: str = "drm") -> None:
    loaded: dict[str, Any] = yaml.safe_load(recipe)
    config = MergeConfiguration.model_validate({"merge_method": method, **loaded})
    require_valid_recipe(config, get(method))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_values_are_found_everywhere(place: str, setting: str):
    def recipe(value: str) -> str:
        return PLACES[place].replace("{}", SETTINGS[setting].replace("{}", value))

    check(recipe("0.3"))
    with pytest.raises(MergeError, match=r"^drm: parameter `density` must be .* got 1\.5\.$"):
        check(recipe("1.5"))


def test_values_that_no_input_uses_are_passed_over():
    base = "models: [{model: base, parameters: {density: 0, weight: 0}}, {model: a}]"
    check(f"{base}\nbase_model: base")
    with pytest.raises(MergeError, match="density"):
        check(f"{base}\nbase_model: a")


def test_parameters_of_other_methods_are_left_alone():
    check(f"{MODELS}\nbase_model: base\nparameters: {{int8_mask: true, epsilon: 7}}")


@pytest.mark.parametrize(
    "recipe",
    [
        MODELS,
        "slices: [{sources: [{model: a, layer_range: [0, 2]}]}]",
        "modules: {text: {models: [{model: a}]}}",
    ],
)
def test_a_base_is_needed(recipe: str):
    with pytest.raises(MergeError, match="set `base_model` in the recipe"):
        check(recipe)


def test_a_slice_may_have_its_own_base():
    check("slices: [{base_model: base, sources: [{model: a, layer_range: [0, 2]}]}]")
