"""mergekit's plan, which check, inspect and the adapter command share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge_methods import get
from mergekit.options import MergeOptions
from support import checkpoints

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.adapter_merge import plan_adapter_merge
from mergekit_spectral.host.chat_templates import chat_template_names
from mergekit_spectral.host.models import lend_opened_files, open_models
from mergekit_spectral.host.plan import (
    PlannedMerge,
    plan_merge,
    read_architecture,
)
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.recipe.text import RecipeText

OPTIONS = MergeOptions()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe for a base, a fine-tune of it and an adapter on it."""
    folder = tmp_path_factory.mktemp("models")
    base = checkpoints.llama()
    base.save_pretrained(folder / "base")
    checkpoints.fine_tuned(base, 1).save_pretrained(folder / "tuned")
    checkpoints.write_adapter(folder / "adapter", base, 2, ["q_proj"])
    models = [f"{folder}/tuned", f"{folder}/base+{folder}/adapter"]
    return {
        "merge_method": "drm",
        "base_model": f"{folder}/base",
        "models": [{"model": model, "parameters": {"weight": 0.5}} for model in models],
        "parameters": {"lambda": 0.8},
    }


def plan(config: MergeConfiguration) -> PlannedMerge:
    recipe = Recipe.of(Path("recipe.yml"), RecipeText(config.to_yaml()), config)
    models, findings = open_models(recipe, OPTIONS)
    assert not findings
    architecture = read_architecture(recipe, models, OPTIONS)
    return plan_merge(recipe, get(config.merge_method), models, architecture, OPTIONS)


def test_it_has_all_tensors_without_reading_one(recipe: dict[str, Any]):
    config = MergeConfiguration.model_validate(recipe)
    planned = plan(config)
    assert config == MergeConfiguration.model_validate(recipe)
    base, tuned, adapted = planned.models
    assert {tensor.name for tensor in planned.tensors} == set(planned.models[base].headers)
    for tensor in planned.tensors:
        assert all(value.device.type == "meta" for value in tensor.inputs.values())
        assert tensor.base_model == base
        assert tensor.shared["lambda"] == 0.8
        assert tensor.per_input[tuned]["weight"] == tensor.per_input[adapted]["weight"] == 0.5
        assert tensor.vocabulary == ("embed" in tensor.name or "lm_head" in tensor.name)
    for model, opened in planned.models.items():
        assert planned.read[model] == set(opened.headers)
        assert model not in LoaderCache.loaders


def test_its_tensors_are_read_from_the_files_that_were_checked(recipe: dict[str, Any]):
    config = MergeConfiguration.model_validate(recipe)
    planned = plan(config)
    models = planned.models
    (query, *_) = [tensor for tensor in planned.tensors if "q_proj" in tensor.name]
    with lend_opened_files(config, models, OPTIONS):
        read = {model: query.read(model) for model in query.inputs}
    base, tuned, adapted = models
    assert torch.equal(read[base], models[base].checkpoint.read(query.name))
    assert torch.equal(read[tuned], models[tuned].checkpoint.read(query.name))
    assert read[adapted].base_id == base


def test_the_adapter_command_has_the_same_plan(recipe: dict[str, Any]):
    adapter_only = recipe | {"models": recipe["models"][1:]}
    tensors = plan(MergeConfiguration.model_validate(adapter_only)).tensors
    before = dict(LoaderCache.loaders)
    merge = plan_adapter_merge(MergeConfiguration.model_validate(adapter_only), OPTIONS)
    assert len(merge) == sum("q_proj" in tensor.name for tensor in tensors)
    assert LoaderCache.loaders == before


def test_what_mergekit_refuses_is_one_sentence(recipe: dict[str, Any]):
    config = MergeConfiguration.model_validate(recipe | {"merge_method": "nearswap"})
    with pytest.raises(MergeError, match=r"^mergekit cannot plan this merge: .*\.$"):
        plan(config)
    assert not any(model.model.path == recipe["base_model"] for model in LoaderCache.loaders)


def test_chat_templates_are_mergekits():
    assert {"chatml", "llama3"} <= set(chat_template_names())
