"""Every tensor of every architecture is what the definition says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import checkpoints
from support.command import mergekit_yaml
from support.expected import assert_merged
from support.recipe_builders import METHODS, recipe

ONE_ROW = {
    "mlp.shared_expert_gate.weight": checkpoints.qwen2_moe,
    "score.weight": lambda: checkpoints.llama_classifier(num_labels=1),
}


@pytest.fixture(scope="module", params=["llama", "mistral", "t5", "bert"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    base = getattr(checkpoints, request.param)()
    return checkpoints.write_family(tmp_path_factory.mktemp(request.param), base)


@pytest.mark.parametrize("method", METHODS)
def test_merges_by_its_definition(method: str, family: checkpoints.Family, out: Path):
    mergekit_yaml(recipe(method, family), out)
    assert_merged(out, family, method)


@pytest.mark.parametrize("name", ONE_ROW)
@pytest.mark.parametrize("method", ["drm", "knots_ties"])
def test_weights_of_one_row(method: str, name: str, tmp_path: Path, out: Path):
    """Stacked, they have rows of one entry, which all are equal once they are renormalized."""
    family = checkpoints.write_family(tmp_path, ONE_ROW[name]())
    mergekit_yaml(recipe(method, family, direction="vertical"), out)
    assert any(key.endswith(name) for key in checkpoints.tensors(out))
    assert_merged(out, family, method, {"direction": "vertical"})
