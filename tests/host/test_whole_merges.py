"""Merges by mergekit within a process that goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions
from support import checkpoints

from mergekit_spectral.host.whole_merges import StoredTensors, merge_into


@pytest.fixture
def config(tmp_path: Path) -> MergeConfiguration:
    base = checkpoints.llama()
    base.save_pretrained(tmp_path / "base")
    adapters = [
        checkpoints.write_adapter(tmp_path / f"adapter-{seed}", base, seed, ["q_proj"], rank=2)
        for seed in (1, 2)
    ]
    recipe = {
        "merge_method": "ties",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": f"{tmp_path / 'base'}+{adapter}"} for adapter in adapters],
        "parameters": {"weight": 1.0, "density": 0.5},
        "dtype": "float32",
    }
    found: MergeConfiguration = MergeConfiguration.model_validate(recipe)
    return found


def test_nothing_stays_open(config: MergeConfiguration, tmp_path: Path):
    """The second merge finds neither the first one's copies nor its files."""
    before = dict(LoaderCache.loaders)
    for name in ("one", "two"):
        options = MergeOptions(lora_merge_cache=str(tmp_path / "copies" / name), quiet=True)
        merge_into(tmp_path / name, config, options)
        assert LoaderCache.loaders == before
        shutil.rmtree(tmp_path / "copies")
    one, two = (StoredTensors(tmp_path / name) for name in ("one", "two"))
    assert one.names == two.names
    for name in one.names:
        assert torch.equal(one.read(name), two.read(name))
