"""Tensors that a model lacks, or that it alone has."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, load_file
from support import checkpoints
from support.command import try_mergekit_yaml
from support.planted_faults import Fault, Workshop, assert_found, checked, repacked
from support.recipe_builders import recipe as plain_recipe

FAULTS: dict[str, Fault] = {
    "a tensor that is missing": (
        lambda w: repacked(w, lambda tensors: tensors.pop("model.norm.weight")),
        "error",
        "lacks model.norm.weight, which the merge needs",
        "models[3].model",
    ),
    "a tensor that only one has": (
        lambda w: repacked(w, lambda tensors: tensors.update({"extra.weight": torch.ones(3)})),
        "warning",
        " has extra.weight, which the merge leaves out",
        "models[3].model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


@pytest.mark.parametrize(
    ("method", "of_base", "runs"),
    [
        ("ties", False, False),
        ("ties", True, True),
        ("slerp", False, True),
        ("multislerp", False, False),
        ("multislerp", True, False),
        ("linear", False, True),
    ],
)
def test_optional_tensors_may_be_missing_where_mergekit_allows_it(
    method: str, of_base: bool, runs: bool, workshop: Workshop
):
    family = checkpoints.write_family(workshop.folder, checkpoints.granite(), count=1)
    owner = family.base if of_base else family.tuned[0]
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}
    checkpoints.write_tensors(owner, {**checkpoints.tensors(owner), **bias})
    recipe = plain_recipe(method, family, weight=1.0, t=0.5)
    if method == "slerp":
        recipe["models"].append({"model": str(family.base)})
    assert checked(recipe, workshop.folder).failed != runs
    result = try_mergekit_yaml(recipe, workshop.folder / "out")
    assert (result.exit_code == 0) == runs


def test_a_tensor_that_only_one_has_beside_tied_ones(workshop: Workshop):
    model = checkpoints.llama(tie_word_embeddings=True)
    family = checkpoints.write_family(workshop.folder, model)
    checkpoints.write_tokenizer(family.base)
    stored = load((family.tuned[0] / "model.safetensors").read_bytes())
    assert "lm_head.weight" not in stored
    assert checked(plain_recipe("drm", family), workshop.folder).findings == ()
    checkpoints.write_tensors(family.tuned[0], {**stored, "extra.weight": torch.ones(3)})
    (found,) = checked(plain_recipe("drm", family), workshop.folder).findings
    assert " has extra.weight, which the merge leaves out" in found.message


def test_experts_that_mergekit_puts_together(workshop: Workshop):
    family = checkpoints.write_family(workshop.folder, checkpoints.mixtral())
    checkpoints.write_tokenizer(family.base)
    names = load_file(family.base / "model.safetensors")
    assert any("experts.0." in name for name in names)
    report = checked(plain_recipe("drm", family), workshop.folder)
    assert report.findings == ()
    assert report.costs is not None


@pytest.mark.parametrize("with_base", [False, True])
def test_slices_of_several_models_need_not_all_give_a_head(with_base: bool, workshop: Workshop):
    family = checkpoints.write_family(workshop.folder, checkpoints.llama(), count=1)
    sources = ({"model": str(model)} for model in (family.base, *family.tuned))
    ranges = ([0, 2], [1, 3])
    slices = [
        {"sources": [{**source, "layer_range": of}]}
        for source, of in zip(sources, ranges, strict=True)
    ]
    recipe = {"merge_method": "passthrough", "slices": slices, "dtype": "float32"}
    if with_base:
        recipe["base_model"] = str(family.base)
    assert checked(recipe, workshop.folder).errors == []
