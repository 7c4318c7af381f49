"""The same merge, whatever the checkpoints on disk look like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from support.expected import assert_merged
from support.recipe_builders import METHODS, per_input, recipe


@pytest.mark.parametrize("method", METHODS)
def test_a_base_listed_among_the_models_is_not_an_input(method: str, llama: Family, out: Path):
    listed = recipe(method, llama)
    listed["models"].insert(1, {"model": str(llama.base)})
    mergekit_yaml(listed, out)
    assert_merged(out, llama, method)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_in_shards(method: str, tmp_path: Path, out: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.llama(), max_shard_size="20KB")
    shards = json.loads((family.base / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(shards.values())) > 2
    mergekit_yaml(recipe(method, family), out)
    assert_merged(out, family, method)


def test_output_in_shards(llama: Family, out: Path):
    mergekit_yaml(recipe("drm", llama), out, "--out-shard-size", "5000")
    assert len(list(out.glob("model-*.safetensors"))) > 2
    assert_merged(out, llama, "drm")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_checkpoints(method: str, dtype: torch.dtype, tmp_path: Path, out: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.llama().to(dtype))
    mergekit_yaml(recipe(method, family), out)
    assert {tensor.dtype for tensor in checkpoints.tensors(out).values()} == {dtype}
    assert_merged(out, family, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_rounds_the_inputs(method: str, dtype: str, llama: Family, out: Path):
    mergekit_yaml({**recipe(method, llama), "dtype": dtype}, out)
    assert_merged(out, llama, method, dtype=getattr(torch, dtype))


@pytest.mark.parametrize("method", METHODS)
def test_out_dtype_rounds_only_the_result(method: str, llama: Family, out: Path):
    mergekit_yaml({**recipe(method, llama), "dtype": "float32", "out_dtype": "bfloat16"}, out)
    assert {tensor.dtype for tensor in checkpoints.tensors(out).values()} == {torch.bfloat16}
    assert_merged(out, llama, method)


def test_inputs_of_mixed_precision(llama: Family, llama_bfloat16: Family, out: Path):
    mixed = Family(llama.base, (llama.tuned[0], llama_bfloat16.tuned[1]))
    mergekit_yaml(recipe("drm", mixed), out)
    assert_merged(out, mixed, "drm")


@pytest.mark.parametrize("method", METHODS)
def test_tied_embeddings(method: str, tmp_path: Path, out: Path):
    family = checkpoints.write_family(tmp_path, checkpoints.llama(tie_word_embeddings=True))
    mergekit_yaml(recipe(method, family), out)
    merged = checkpoints.tensors(out)
    assert torch.equal(merged["lm_head.weight"], merged["model.embed_tokens.weight"])
    assert_merged(out, family, method)


@pytest.mark.parametrize("method", METHODS)
def test_an_input_equal_to_the_base(method: str, llama: Family, out: Path):
    family = Family(llama.base, (_copy(llama.base, out.parent / "same"), *llama.tuned[:2]))
    mergekit_yaml(recipe(method, family), out)
    assert_merged(out, family, method)


def test_an_input_equal_to_the_base_has_no_vote_in_knots(llama: Family, out: Path):
    family = Family(llama.base, (_copy(llama.base, out.parent / "same"), *llama.tuned[:2]))
    mergekit_yaml(recipe("knots_ties", family), out)
    assert_merged(out, Family(llama.base, llama.tuned[:2]), "knots_ties")


@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_all_equal_the_base(method: str, llama: Family, out: Path):
    family = Family(llama.base, tuple(_copy(llama.base, out.parent / name) for name in "ab"))
    mergekit_yaml(recipe(method, family), out)
    base = checkpoints.tensors(llama.base)
    for name, tensor in checkpoints.tensors(out).items():
        assert torch.equal(tensor, base[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_one_input(method: str, llama: Family, out: Path):
    family = Family(llama.base, llama.tuned[:1])
    mergekit_yaml(recipe(method, family), out)
    assert_merged(out, family, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_models_does_not_matter(method: str, llama: Family, out: Path):
    family = Family(llama.base, llama.tuned[::-1])
    mergekit_yaml(per_input(recipe(method, family), weight=[3.0, 2.0, 1.0]), out)
    assert_merged(out, llama, method, {"weights": [1.0, 2.0, 3.0]})


def _copy(folder: Path, copy: Path) -> Path:
    copy.symlink_to(folder, target_is_directory=True)
    return copy
