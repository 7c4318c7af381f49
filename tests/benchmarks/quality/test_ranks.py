"""`benchmarks.quality ranks`: both ways of compression, scored and printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from support.documents import tables
from transformers import LlamaForCausalLM

from benchmarks.quality.__main__ import main
from benchmarks.quality.ranks.measure import Adapter, adapted
from benchmarks.quality.ranks.tables import Results
from mergekit_spectral.adapters.writing import LayerKind
from mergekit_spectral.host.adapter_merge import MergedWeight
from mergekit_spectral.spectral import Compressed, FactoredDelta


def test_adapters_of_smaller_ranks(trained: Callable[..., Path], tmp_path: Path):
    folder, found = trained("plurals", "sums", kind="lora"), tmp_path / "found.json"
    command = ["ranks", "--tasks", "plurals,sums", "--methods", "iso,star", "--ranks", "2"]
    options = ["--count", "2", "--cache", str(folder), "--json", str(found)]
    result = CliRunner().invoke(main, [*command, *options], env={"COLUMNS": None})
    assert result.exit_code == 0, result.output
    accuracies, exact = tables(result.stdout)
    assert [row[:2] for row in accuracies.rows] == [
        ["iso", "merged update"],
        ["iso", "inputs, the default"],
        ["star", "merged update, the default"],
        ["star", "inputs"],
    ]
    assert [row[:2] for row in exact.rows] == [
        ["iso", "none"],
        ["iso", "2"],
        ["star", "none"],
        ["star", "2"],
    ]
    merged = json.loads(found.read_text())["merged"]
    lost = {
        (one["method"], one["rank"], one["inputs_compressed"]): (
            one["update_lost"][0],
            one["inputs_lost"][0],
        )
        for one in merged
    }
    for method in ("iso", "star"):
        assert lost[method, None, False] == (pytest.approx(0, abs=1e-6), 0)
        update, inputs = lost[method, 2, False]
        assert update > 0.01
        assert inputs == 0
        update, inputs = lost[method, 2, True]
        assert update == pytest.approx(0, abs=1e-6)
        assert inputs > 0.01


def test_accuracy_is_relative_to_the_adapters_own():
    adapter = Adapter("iso", None, False, (0, 0), (0, 0), {}, {"sums": 0.4, "plurals": 0.6})
    results = Results(False, "test", 10, ("sums", "plurals"), {"sums": 0.8, "plurals": 0.6}, ())
    assert results.normalized(adapter) == pytest.approx(0.75)


def test_updates_are_added_and_removed(model: LlamaForCausalLM):
    name = "model.layers.0.mlp.up_proj"
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    before = weight.clone()
    delta = FactoredDelta(torch.ones(32, 1), torch.full((1, 16), 2.0))
    merged = MergedWeight(name, Compressed(delta, 1.0), 1.0, LayerKind.LINEAR)
    with adapted(model, [merged]):
        torch.testing.assert_close(weight.detach(), before + 2)
    assert torch.equal(weight, before)
