"""LoRA adapters, written `base+adapter` in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end import checkpoints
from end_to_end.checkpoints import Family
from end_to_end.command import mergekit_yaml
from end_to_end.expected import assert_weights_merged, with_adapter
from end_to_end.recipe_builders import METHODS

ATTENTION = ("q_proj", "v_proj", "o_proj")
MLP = ("up_proj", "down_proj")


@pytest.fixture(scope="module")
def adapters(llama: Family, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three adapters on the Llama; not all of them change the same weights."""
    folder = tmp_path_factory.mktemp("adapters")
    base = checkpoints.llama()
    return tuple(
        checkpoints.write_adapter(folder / str(seed), base, seed, targets, rank)
        for seed, (targets, rank) in enumerate([(ATTENTION, 4), (ATTENTION, 8), (MLP, 4)], start=1)
    )


@pytest.mark.parametrize("method", METHODS)
def test_merges_the_adapters_updates(
    method: str, llama: Family, adapters: tuple[Path, ...], out: Path
):
    recipe = _recipe(method, llama, adapters)
    mergekit_yaml(recipe, out)
    base = checkpoints.tensors(llama.base)
    tuned = [with_adapter(base, adapter) for adapter in adapters]
    assert_weights_merged(checkpoints.tensors(out), base, tuned, method)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_beside_a_full_fine_tune(
    method: str, llama: Family, adapters: tuple[Path, ...], out: Path
):
    recipe = _recipe(method, llama, adapters[:1])
    recipe["models"].append({"model": str(llama.tuned[0])})
    mergekit_yaml(recipe, out)
    base, tuned = (checkpoints.tensors(path) for path in (llama.base, llama.tuned[0]))
    inputs = [with_adapter(base, adapters[0]), tuned]
    assert_weights_merged(checkpoints.tensors(out), base, inputs, method)


def _recipe(method: str, llama: Family, adapters: tuple[Path, ...]) -> dict:
    return {
        "merge_method": method,
        "base_model": str(llama.base),
        "models": [{"model": f"{llama.base}+{adapter}"} for adapter in adapters],
    }
