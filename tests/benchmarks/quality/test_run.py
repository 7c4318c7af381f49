"""The command `run`, on a tiny model, through the real mergekit-yaml.

Its processes are forks, except those that `test_several_workers_give_the_same_scores` starts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import click
import pytest
import torch
import yaml
from click.testing import CliRunner
from filelock import FileLock
from transformers import LlamaForCausalLM

from benchmarks.quality.__main__ import main
from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.command import normalized
from benchmarks.quality.merging.merges import Merge, merged
from benchmarks.quality.merging.methods import METHODS, SCALES
from benchmarks.quality.merging.plan import plan, subsets
from benchmarks.quality.merging.scaling import ScaledMerge
from benchmarks.quality.scoring import TaskScore
from mergekit_spectral.demo.recipes import run_recipe

pytestmark = pytest.mark.usefixtures("forked_mergekit")

# Choices, so that even a model that knows nothing is right now and then.
TASKS = ("parts_of_speech", "sentiment")
LETTERS = tuple("abcdefgh")


@pytest.fixture(scope="module")
def cache(trained: Callable[..., Path]) -> Path:
    return trained(*TASKS)


def run(cache: Path, *options: str) -> str:
    command = ["run", "--cache", str(cache), "--tasks", ",".join(TASKS), "--sizes", "2", *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return result.output


def test_merges_are_scored_and_recorded_once(cache: Path):
    options = ("--kind", "lora", "--methods", "drm,task_arithmetic")
    output = run(cache, *options)
    assert output.startswith("2 of 2 merges to make\n[1/2] lora drm of 2: ")
    assert run(cache, *options) == "0 of 2 merges to make\n"

    path = cache / "results" / "lora" / "task_arithmetic" / "parts_of_speech-sentiment-0.json"
    record = json.loads(path.read_text())
    assert record["scales"]["published"] == 0.4
    assert [float(scale) for scale in record["validation"]] == list(SCALES)
    best = max(record["validation"].values())
    assert record["validation"][str(record["scales"]["tuned"])] == best
    for which in ("published", "tuned"):
        for score in record["test"][which]:
            alone = json.loads((cache / "lora" / score["task"] / "training.json").read_text())
            expected = score["choice"] / alone["after"]["test"]["choice"]
            assert record["normalized"][which][score["task"]] == expected
    assert not any(path.is_dir() for path in (cache / "merging").iterdir())
    assert any((cache / "copies" / "lora").iterdir())  # of the inputs of task_arithmetic


def test_several_workers_give_the_same_scores(cache: Path):
    """Both methods need the same copies of the adapters."""
    methods = ("ties", "task_arithmetic")

    def scores(*options: str) -> list[object]:
        shutil.rmtree(cache / "copies", ignore_errors=True)
        folders = [cache / "results" / "lora" / method for method in methods]
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        run(cache, "--kind", "lora", "--methods", ",".join(methods), *options)
        return [json.loads(path.read_text())["test"] for f in folders for path in f.iterdir()]

    in_parallel = scores("--workers", "2")
    assert len(in_parallel) == 2
    assert in_parallel == scores()


@pytest.mark.parametrize("method", ["della", "knots_ties"])
def test_any_scale_of_one_merge_is_a_merge_of_that_scale(
    method: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    checkpoints, merge = Checkpoints(cache), Merge("full", method, TASKS, seed=3)
    recipe = merge.recipe(checkpoints)
    recipe["parameters"]["lambda"] = 0.7
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    run_recipe(tmp_path / "recipe.yml", tmp_path / "out", tmp_path, options=["--random-seed", "3"])
    expected = LlamaForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    with merged(merge, checkpoints) as (folder, seconds):
        assert seconds > 0
        scaled = ScaledMerge(checkpoints.base, folder)
        for scale in (2.0, 0.7):  # neither leaves a trace in the next
            weights = scaled.at(scale).state_dict()
    base = LlamaForCausalLM.from_pretrained(checkpoints.base).state_dict()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-6)
        assert not torch.allclose(weight, base[name], rtol=0, atol=1e-5)


def test_a_failed_merge_is_reported_and_leaves_no_record(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = replace(METHODS["drm"], parameters={"density": 7})
    monkeypatch.setitem(METHODS, "drm", broken)
    command = ["run", "--cache", str(cache), "--tasks", ",".join(TASKS), "--sizes", "2"]
    result = CliRunner().invoke(main, [*command, "--kind", "full", "--methods", "drm"])
    assert result.exit_code == 1
    assert "mergekit-yaml failed on drm.yml" in result.output
    assert "density" in result.output
    assert not list(cache.glob("results/full/drm/*"))
    assert not any(path.is_dir() for path in (cache / "merging").iterdir())


def test_one_run_of_a_kind_at_a_time(cache: Path):
    command = ["run", "--cache", str(cache), "--tasks", ",".join(TASKS), "--sizes", "2"]
    command += ["--kind", "full", "--methods", "star"]
    (cache / "merging").mkdir(exist_ok=True)
    with FileLock(cache / "merging" / "full.lock"):
        left = cache / "merging" / "full" / "of another run"
        left.mkdir(parents=True)
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        assert f"another run is merging full fine-tunes in {cache}" in result.output
        assert left.exists()
    copies = cache / "copies" / "full"  # half-written, for all that the next run knows
    copies.mkdir(parents=True)
    assert CliRunner().invoke(main, command).exit_code == 0
    assert not left.exists()
    assert not copies.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "poetry"], "there is no task 'poetry'"),
        (["--tasks", "sums,letters", "--sizes", "3"], "--sizes: there are 2 tasks, not 3"),
        (["--tasks", "sums", "--sizes", "1"], "no lora fine-tune of sums in "),
    ],
)
def test_errors_are_reported(cache: Path, options: list[str], message: str):
    result = CliRunner().invoke(main, ["run", "--cache", str(cache), *options])
    assert result.exit_code != 0
    assert message in result.output


def test_subsets():
    drawn = subsets(LETTERS, 3, 20)
    assert drawn == subsets(LETTERS, 3, 40)[:20]
    assert len(set(drawn)) == 20
    assert all(tuple(sorted(subset)) == subset and len(set(subset)) == 3 for subset in drawn)
    assert subsets(LETTERS, 8, 5) == [LETTERS]
    assert set("".join(map("".join, drawn))) == set(LETTERS)


def test_the_plan_has_each_method_on_the_same_subsets_and_seeds_for_the_random_ones():
    planned = list(plan(["lora"], ["ties", "della"], LETTERS, [2, 8], 3))
    assert len(planned) == len(set(planned))
    of = {m: [x for x in planned if x.method == m] for m in ("ties", "della")}
    assert [merge.tasks for merge in of["ties"]] == [merge.tasks for merge in of["della"][:4]]
    assert [merge.seed for merge in of["ties"]] == [0, 0, 1, 2]
    assert [merge.seed for merge in of["della"] if merge.tasks == LETTERS] == [0, 1, 2]


def test_accuracies_are_over_those_of_the_fine_tunes():
    scores = [TaskScore("sums", "test", 100, exact=0.3, choice=None)]
    alone = {"sums": {"after": {"test": asdict(replace(scores[0], exact=0.6))}}}
    assert normalized(scores, alone) == {"sums": 0.5}
    alone["sums"]["after"]["test"]["exact"] = 0.0
    with pytest.raises(click.ClickException, match="gets none of its test examples right"):
        normalized(scores, alone)
