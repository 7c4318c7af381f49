"""base + s·Δ in memory against models that are merged at λ = s."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mergekit.options import MergeOptions
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from support.recipe_builders import recipe
from torch import Tensor, nn
from transformers import PreTrainedModel

from mergekit_spectral.checking.checks import plan_inspection
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.host.whole_merges import StoredTensors
from mergekit_spectral.tuning.models import ScaledModel, load_model, parameters
from mergekit_spectral.tuning.updates import (
    Update,
    make_adapter,
    make_difference,
    plan_adapter,
)

CPU = torch.device("cpu")


def scaled(base: Path, work: Path, dtype: torch.dtype = torch.float32) -> ScaledModel:
    return ScaledModel(base, work / "work", dtype, CPU, trust_remote_code=False)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.arange(3, 23)[None]).logits
    return found.double()


def logits_of(folder: Path) -> Tensor:
    return logits(load_model(folder, torch.float32, CPU, False))


def planned(recipe: dict[str, Any], folder: Path) -> PlannedMerge:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe))
    return plan_inspection(path, MergeOptions(), folder / "out")


def difference(
    recipe: dict[str, Any], folder: Path, dtype: torch.dtype = torch.float32, **options: Any
) -> Update:
    plan = planned(recipe, folder)
    (base,) = plan.recipe.base_models
    return make_difference(
        plan.recipe.config,
        plan,
        base,
        MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, **options),
        dtype,
        folder / "update",
        partial(parameters, dtype=dtype, trust_remote_code=False),
    )


def at_lambda(recipe: dict[str, Any], scale: float, out: Path, *options: str) -> Tensor:
    """Return the logits of what mergekit-yaml merges at a λ."""
    parameters = {**recipe["parameters"], "lambda": scale}
    return logits_of(mergekit_yaml({**recipe, "parameters": parameters}, out, *options))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return checkpoints.write_family(tmp_path_factory.mktemp("full"), checkpoints.llama(), 2)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder, base = tmp_path_factory.mktemp("lora"), checkpoints.llama()
    base.save_pretrained(folder / "base")
    tuned = [
        checkpoints.write_adapter(folder / f"{seed}", base, seed, ["q_proj", "down_proj"], rank=3)
        for seed in (1, 2)
    ]
    return Family(folder / "base", tuple(tuned))


def adapters(method: str, lora: Family, **values: Any) -> dict[str, Any]:
    models = [{"model": f"{lora.base}+{path}"} for path in lora.tuned]
    return {**recipe(method, lora, **values), "models": models}


@pytest.mark.parametrize("method", ["ties", "drm", "task_arithmetic"])
def test_difference_of_full_models(method: str, full: Family, tmp_path: Path):
    own = recipe(method, full, weight=1.0)
    update = difference(own, tmp_path)
    model = scaled(full.base, tmp_path)
    before = logits_of(full.base)
    for scale in (0.5, 1.7, 1.0):
        expected = at_lambda(own, scale, tmp_path / f"{scale}")
        found = logits(model.at(update, scale))
        assert float((found - expected).norm()) < 1e-4 * float((expected - before).norm())
    assert torch.equal(logits(model.base()), before)


def test_difference_of_models_in_bfloat16(tmp_path: Path):
    """The difference is made in float32, not of two models in bfloat16."""
    base = checkpoints.llama().to(torch.bfloat16)
    family = checkpoints.write_family(tmp_path, base, 2)
    own = recipe("drm", family, weight=1.0, density=1.0)
    update = difference(own, tmp_path)
    stored = StoredTensors(update.folder)
    name = "model.layers.1.mlp.down_proj.weight"
    exact = difference({**own, "dtype": "float32"}, tmp_path)
    assert torch.equal(stored.read(name), StoredTensors(exact.folder).read(name))
    assert float(stored.read(name).norm()) > 0


@pytest.mark.parametrize("make", [checkpoints.mixtral, checkpoints.qwen3_moe])
def test_models_that_join_tensors_when_they_are_loaded(make: Any, tmp_path: Path):
    family = checkpoints.write_family(tmp_path, make(), 2)
    own = recipe("task_arithmetic", family, weight=0.5)
    update = difference(own, tmp_path)
    found = logits(scaled(family.base, tmp_path).at(update, 0.5))
    expected = at_lambda(own, 0.5, tmp_path / "merged")
    assert torch.allclose(found, expected, atol=1e-5)


def test_tied_embeddings(tmp_path: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.llama(tie_word_embeddings=True), 2)
    own = recipe("task_arithmetic", family, weight=0.5)
    update = difference(own, tmp_path)
    assert "lm_head.weight" not in StoredTensors(update.folder).names
    found = logits(scaled(family.base, tmp_path).at(update, 0.5))
    assert torch.allclose(found, at_lambda(own, 0.5, tmp_path / "merged"), atol=1e-5)


@pytest.mark.parametrize("method", ["drm", "knots_ties", "iso"])
def test_adapters_stay_an_adapter(method: str, lora: Family, tmp_path: Path):
    own = adapters(method, lora, weight=1.0)
    merge = plan_adapter(planned(own, tmp_path).recipe.config, MergeOptions())
    assert merge is not None
    update = make_adapter(merge, 0, tmp_path / "update")
    assert update.is_adapter
    model = scaled(lora.base, tmp_path)
    for scale in (0.4, 1.0):
        expected = at_lambda(own, scale, tmp_path / f"{scale}")
        assert torch.allclose(logits(model.at(update, scale)), expected, atol=1e-5)
    assert not (tmp_path / "work").exists()  # no copy of the base is needed


def test_what_does_not_stay_an_adapter(lora: Family, full: Family, tmp_path: Path):
    for own in (adapters("ties", lora, weight=1.0), recipe("drm", full)):
        assert plan_adapter(planned(own, tmp_path).recipe.config, MergeOptions()) is None


def test_updates_of_both_kinds_take_turns(lora: Family, tmp_path: Path):
    """Each gives what it gives alone, whatever was in memory before."""
    merge = plan_adapter(planned(adapters("drm", lora), tmp_path).recipe.config, MergeOptions())
    assert merge is not None
    factors = make_adapter(merge, 0, tmp_path / "factors")
    copies = str(tmp_path / "copies")
    whole = difference(adapters("ties", lora, weight=1.0), tmp_path, lora_merge_cache=copies)
    alone = {
        "factors": logits(scaled(lora.base, tmp_path).at(factors, 0.7)),
        "whole": logits(scaled(lora.base, tmp_path).at(whole, 0.7)),
        "base": logits_of(lora.base),
        "first": logits(scaled(lora.base, tmp_path).with_adapter(lora.tuned[0])),
        "second": logits(scaled(lora.base, tmp_path).with_adapter(lora.tuned[1])),
    }
    model = scaled(lora.base, tmp_path)
    ways = {
        "factors": lambda: model.at(factors, 0.7),
        "whole": lambda: model.at(whole, 0.7),
        "base": model.base,
        "first": lambda: model.with_adapter(lora.tuned[0]),
        "second": lambda: model.with_adapter(lora.tuned[1]),
    }
    assert len({tuple(one.flatten().tolist()) for one in alone.values()}) == len(alone)
    order = "base factors whole factors first second base whole base first whole second factors"
    for name in order.split():
        assert torch.allclose(logits(ways[name]()), alone[name], atol=1e-6), name


def test_a_folder_without_weights_for_the_whole_model(tmp_path: Path):
    model: PreTrainedModel = checkpoints.llama()
    model.save_pretrained(tmp_path)
    tensors = checkpoints.tensors(tmp_path)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    checkpoints.write_tensors(tmp_path, tensors)
    with pytest.raises(MergeError, match=r"has no weights for model\.layers\.0\.mlp\.up_proj"):
        load_model(tmp_path, torch.float32, CPU, False)


def test_a_folder_without_a_language_model(tmp_path: Path):
    with pytest.raises(MergeError, match="cannot load"):
        load_model(tmp_path, torch.float32, CPU, False)


def test_a_merge_with_another_vocabulary(tmp_path: Path):
    base = checkpoints.llama()
    base.save_pretrained(tmp_path / "base")
    checkpoints.write_tokenizer(tmp_path / "base")
    checkpoints.write_enlarged(tmp_path / "tuned", checkpoints.fine_tuned(base, 1), "<extra>")
    own = recipe("drm", Family(tmp_path / "base", (tmp_path / "tuned",)))
    with pytest.raises(MergeError, match="remove `tokenizer_source`"):
        difference({**own, "tokenizer_source": "union"}, tmp_path)
    assert not (tmp_path / "update").exists()
    assert not list(tmp_path.glob("update.*"))
