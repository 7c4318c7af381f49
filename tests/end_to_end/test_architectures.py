"""Every tensor of every architecture is what the definition says."""

from __future__ import annotations

from pathlib import Path

import pytest
from end_to_end import checkpoints
from end_to_end.command import mergekit_yaml
from end_to_end.expected import assert_merged
from end_to_end.recipe_builders import METHODS, recipe


@pytest.fixture(scope="module", params=["llama", "mistral", "t5", "bert"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    base = getattr(checkpoints, request.param)()
    return checkpoints.write_family(tmp_path_factory.mktemp(request.param), base)


@pytest.mark.parametrize("method", METHODS)
def test_merges_by_its_definition(method: str, family: checkpoints.Family, out: Path):
    mergekit_yaml(recipe(method, family), out)
    assert_merged(out, family, method)
