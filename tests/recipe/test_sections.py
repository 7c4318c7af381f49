"""The one traversal of a recipe: its sections, and the models that are merged together."""

from __future__ import annotations

import yaml
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration

from mergekit_spectral.recipe.sections import (
    base_models,
    filters,
    find_setting,
    groups,
    references,
    sections,
)

RECIPE = """
merge_method: drm
base_model: base
parameters: {density: [{filter: mlp, value: 0.5}, {value: 0.2}]}
modules:
  text:
    parameters: {weight: 1}
    models: [{model: a, parameters: {weight: 2}}, {model: b}]
  vision:
    slices:
    - base_model: other
      sources: [{model: c, layer_range: [0, 2]}, {model: other, layer_range: [1, 3]}]
"""
CONFIG = MergeConfiguration.model_validate(yaml.safe_load(RECIPE))


def model(name: str) -> ModelReference:
    return ModelReference.parse(name)


def test_sections_come_from_outside_in():
    assert [section.key[:-1] for section in sections(CONFIG)] == [
        (),
        ("modules", "text"),
        ("modules", "text", "models", 0),
        ("modules", "text", "models", 1),
        ("modules", "vision"),
        ("modules", "vision", "slices", 0),
        ("modules", "vision", "slices", 0, "sources", 0),
        ("modules", "vision", "slices", 0, "sources", 1),
    ]


def test_sections_hold_for_what_is_inside():
    whole, text, *_ = sections(CONFIG)
    place = ("modules", "text", "models", 1)
    assert whole.contains(place)
    assert text.contains(place)
    assert not text.contains(("modules", "vision", "slices", 0))


def test_groups_have_their_own_base():
    text, vision = groups(CONFIG)
    assert (text.key, text.module, text.is_slice) == (("modules", "text", "models"), "text", False)
    assert (text.models, text.base_model) == ((model("a"), model("b")), model("base"))
    assert (vision.key[-1], vision.module, vision.is_slice) == ("sources", "vision", True)
    assert (vision.models, vision.base_model) == ((model("c"), model("other")), model("other"))
    assert [section.layers for section in vision.inputs] == [(0, 2), (1, 3)]
    assert [section.of_base for section in vision.inputs] == [False, True]


def test_models_are_named_where_they_are_first():
    assert base_models(CONFIG) == {model("base"), model("other")}
    assert references(CONFIG) == {
        model("base"): ("base_model",),
        model("a"): ("modules", "text", "models", 0, "model"),
        model("b"): ("modules", "text", "models", 1, "model"),
        model("other"): ("modules", "vision", "slices", 0, "base_model"),
        model("c"): ("modules", "vision", "slices", 0, "sources", 0, "model"),
    }


def test_settings_and_filters_have_places():
    every = list(sections(CONFIG))
    assert list(filters(every)) == [(("parameters", "density", 0), "mlp")]
    own = ("modules", "text", "models", 0, "parameters", "weight")
    assert find_setting(every, "weight", model("a")) == own
    assert find_setting(every, "weight", model("b")) == ("modules", "text", "parameters", "weight")
    assert find_setting(every, "lambda", model("a")) == ()
