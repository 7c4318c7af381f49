"""The command `demo-files`, on a tiny model, and the examples that it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.quality.__main__ import main
from benchmarks.quality.analysing.updates import adapter_update
from benchmarks.quality.demo_files import TUNING_EXAMPLES
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.tasks.task import TEST_EXAMPLES, split
from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.lora import LoraAdapter
from mergekit_spectral.demo import MODEL_NAME
from mergekit_spectral.demo.recipes import (
    ADAPTERS,
    HELD_OUT,
    TO_TUNE,
    Task,
    read_tasks,
    recipe_folder,
)
from mergekit_spectral.tuning.examples import Question, read_data_set


@pytest.fixture(scope="module")
def cache(trained: Callable[..., Path]) -> Path:
    return trained(*ADAPTERS, kind="lora")


def test_adapters_are_the_best_approximations_of_their_rank(cache: Path, tmp_path: Path):
    command = ["demo-files", "--cache", str(cache), "--out", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    for name in ADAPTERS:
        whole, small = (
            LoraAdapter(find_adapter(str(folder / name)))
            for folder in (cache / "lora", tmp_path / "adapters")
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
        record = json.loads((tmp_path / "adapters" / name / "training.json").read_text())
        assert record["kept"] == pytest.approx(kept / total, rel=1e-5)
        assert record["trained"]["settings"]["task"] == name
        assert f"{name}: {record['kept']:.1%} of the update" in result.output
        sides = split(TASKS[name])
        for part, side in ((HELD_OUT, sides.test), (TO_TUNE, sides.validation[:TUNING_EXAMPLES])):
            written = read_data_set(tmp_path / part / f"{name}.jsonl").examples
            assert set(written) == {Question(e.prompt, e.answer + ".") for e in side}


def test_a_missing_fine_tune_is_reported_before_anything_is_written(tmp_path: Path):
    command = ["demo-files", "--cache", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "no lora fine-tune of numbers in" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", read_tasks(), ids=lambda task: task.data.name)
def test_the_demo_asks_nothing_that_its_adapters_were_trained_or_tuned_on(task: Task):
    assert len(task.data.examples) == TEST_EXAMPLES
    source = TASKS[task.data.name]
    assert task.title == source.title
    key_of = {example.prompt: example.key for example in source.generate()}
    trained = {example.key for example in split(source).train}
    to_tune = read_data_set(recipe_folder() / TO_TUNE / f"{source.name}.jsonl")
    held_out, others = (
        # Other versions of the word lists may lack a few of the words.
        [key_of[each.prompt] for each in data.examples if each.prompt in key_of]
        for data in (task.data, to_tune)
    )
    assert len(held_out) > 0.9 * TEST_EXAMPLES
    assert len(others) > 0.9 * TUNING_EXAMPLES
    assert trained.isdisjoint((*held_out, *others))
    assert set(held_out).isdisjoint(others)
