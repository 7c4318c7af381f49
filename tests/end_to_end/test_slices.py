"""Recipes that put a model together from ranges of layers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml, try_mergekit_yaml
from support.expected import Weights, assert_weights_merged
from support.recipe_builders import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_a_slice_with_only_the_base(method: str, llama: Family, out: Path):
    mergekit_yaml(_sliced(method, llama, [(0, 2, True), (2, 3, False)]), out)

    base = checkpoints.tensors(llama.base)
    merged = checkpoints.tensors(out)
    untouched = {name: base[name] for name in base if re.search(r"layers\.2|norm\.w|lm_h", name)}
    for name in [name for name in untouched if not re.search(r"layers\.[01]\.", name)]:
        assert torch.equal(merged[name], base[name]), name

    rest = [name for name in base if re.search(r"layers\.[01]\.|embed_tokens", name)]
    tuned = [checkpoints.tensors(path) for path in llama.tuned]
    assert_weights_merged(_only(merged, rest), _only(base, rest), tuned, method)


@pytest.mark.parametrize("method", METHODS)
def test_layers_used_twice(method: str, llama: Family, out: Path):
    mergekit_yaml(_sliced(method, llama, [(0, 2, True), (1, 3, True)]), out)
    base, *tuned = (
        _restacked(checkpoints.tensors(path), [0, 1, 1, 2]) for path in (llama.base, *llama.tuned)
    )
    assert_weights_merged(checkpoints.tensors(out), base, tuned, method)


def test_a_slice_without_the_base_is_refused(llama: Family, out: Path):
    recipe = _sliced("drm", llama, [(0, 3, True)])
    recipe["slices"][0]["sources"].pop()
    result = try_mergekit_yaml(recipe, out)
    assert result.exit_code == 1
    assert "Error: drm" in result.output
    assert "slices[0]" in result.output


def _sliced(method: str, family: Family, ranges: list[tuple[int, int, bool]]) -> dict:
    """A recipe of layer ranges, each with all of the family's models or only the base."""
    slices = []
    for start, end, everyone in ranges:
        models = [*(family.tuned if everyone else ()), family.base]
        sources = [{"model": str(model), "layer_range": [start, end]} for model in models]
        slices.append({"sources": sources})
    return {"merge_method": method, "base_model": str(family.base), "slices": slices}


def _only(weights: Weights, names: list[str]) -> Weights:
    return {name: weights[name] for name in names}


def _restacked(weights: Weights, layers: list[int]) -> Weights:
    """Give the model these layers, in this order, in place of its own."""
    stacked = {name: weights[name] for name in weights if "layers." not in name}
    for new, old in enumerate(layers):
        prefix = f"model.layers.{old}."
        for name in weights:
            if name.startswith(prefix):
                stacked[f"model.layers.{new}.{name.removeprefix(prefix)}"] = weights[name]
    return stacked
