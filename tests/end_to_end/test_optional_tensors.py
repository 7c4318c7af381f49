"""Weights that mergekit knows as optional: a Granite may have biases in its attention."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load, save_file
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml, try_mergekit_yaml
from support.expected import assert_close, assert_weights_merged, merged_delta
from support.recipe_builders import METHODS, recipe

BIAS = "model.layers.0.self_attn.q_proj.bias"


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return checkpoints.write_family(tmp_path, checkpoints.granite(attention_bias=True))


@pytest.mark.parametrize("method", METHODS)
def test_an_input_without_it_does_not_count(method: str, family: Family, out: Path):
    base, *tuned = (checkpoints.tensors(path) for path in (family.base, *family.tuned))
    _remove(BIAS, family.tuned[1])
    mergekit_yaml(recipe(method, family), out)

    merged = checkpoints.tensors(out)
    start = base.pop(BIAS).double()
    deltas = [tuned[index].pop(BIAS).double() - start for index in (0, 2)]
    assert_close(BIAS, merged.pop(BIAS), start, merged_delta(BIAS, deltas, method))
    assert_weights_merged(merged, base, tuned, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_base_without_it_is_refused(method: str, family: Family, out: Path):
    _remove(BIAS, family.base)
    result = try_mergekit_yaml(recipe(method, family), out)
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert BIAS in result.output


def _remove(name: str, folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load(path.read_bytes())
    del weights[name]
    save_file(weights, path, metadata={"format": "pt"})
