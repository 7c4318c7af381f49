"""The command `demo-adapters`, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.quality.__main__ import main
from benchmarks.quality.analysing.updates import adapter_update
from mergekit_spectral.adapters import LoraAdapter, find_adapter
from mergekit_spectral.demo.base_model import MODEL_NAME
from mergekit_spectral.demo.tasks import TASKS

NAMES = [task.name for task in TASKS]


@pytest.fixture(scope="module")
def cache(trained: Callable[..., Path]) -> Path:
    return trained(*NAMES, kind="lora")


def test_they_are_the_best_of_their_rank(cache: Path, tmp_path: Path):
    command = ["demo-adapters", "--cache", str(cache), "--out", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    for name in NAMES:
        whole, small = (
            LoraAdapter(find_adapter(str(f / name))) for f in (cache / "lora", tmp_path)
        )
        assert small.config.base_model_name_or_path == MODEL_NAME
        assert small.updates.keys() == whole.updates.keys()
        kept = total = 0.0
        for weight in whole.updates:
            D = adapter_update(whole, weight).to_dense().double()
            squares = torch.linalg.svdvals(D).square()
            got = adapter_update(small, weight).to_dense().double()
            best = squares[4:].sum()
            # The factors are stored in bfloat16.
            assert (D - got).square().sum() <= best + 1e-4 * squares.sum()
            kept, total = kept + float(squares[:4].sum()), total + float(squares.sum())
        record = json.loads((tmp_path / name / "training.json").read_text())
        assert record["kept"] == pytest.approx(kept / total, rel=1e-5)
        assert record["trained"]["settings"]["task"] == name
        assert f"{name}: {record['kept']:.1%} of the update" in result.output


def test_a_missing_adapter_is_told_before_anything_is_written(tmp_path: Path):
    command = ["demo-adapters", "--cache", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "no lora fine-tune of numbers in" in result.output
    assert not (tmp_path / "out").exists()
