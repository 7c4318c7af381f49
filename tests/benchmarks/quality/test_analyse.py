"""The command `analyse`, on a tiny model, through the real mergekit-yaml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel
from support.quality_records import write_merge
from transformers import LlamaForCausalLM

from benchmarks.quality.__main__ import main
from benchmarks.quality.analysing.updates import analysed_weights, updates
from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.merging.variants import COMPARED, VARIANTS

TASKS = ("sentiment", "parts_of_speech")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def cache(trained: Callable[..., Path]) -> Path:
    return trained(*TASKS)


def analyse(*options: object) -> str:
    result = CliRunner().invoke(main, ["analyse", *map(str, options)])
    assert result.exit_code == 0, result.output
    return result.stdout


def few(cache: Path, json_path: Path) -> list[object]:
    tasks = ",".join(TASKS)
    return ["--cache", cache, "--tasks", tasks, "--size", 2, "--json", json_path]


def test_updates_are_the_checkpoints_differences_to_the_base(cache: Path):
    checkpoints = Checkpoints(cache)
    weights = list(analysed_weights(checkpoints))
    assert len(weights) == 8  # of two layers
    base = LlamaForCausalLM.from_pretrained(checkpoints.base, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    for kind in ("lora", "full"):
        for number, task in enumerate(TASKS):
            path = checkpoints.path(kind, task)
            if kind == "lora":
                tuned = PeftModel.from_pretrained(base, path).merge_and_unload()
            else:
                tuned = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
            for weight in weights:
                delta = updates(checkpoints, kind, TASKS, weight)[number].to_dense()
                expected = tuned.state_dict()[weight] - before[weight]
                torch.testing.assert_close(delta, expected, rtol=0, atol=1e-6)
                assert delta.any()
            base.load_state_dict(before)


def test_matrices_without_merges(cache: Path, tmp_path: Path):
    path, plots = tmp_path / "analyses.json", tmp_path / "plots"
    output = analyse(*few(cache, path), "--no-merge", "--plot", plots)
    assert output.count("| 1 down_proj |") == 6  # three tables of two kinds
    assert "missing: 15 of 15 lora merges (drm 1, drm_without_renormalization 1, " in output
    matrices = json.loads(path.read_text())["matrices"]
    assert [matrix["kind"] for matrix in matrices] == ["lora"] * 8 + ["full"] * 8
    assert {file.name for file in plots.iterdir()} == {"pruned-rows.png", "signs.png", "ranks.png"}
    again = analyse("--from", path)
    assert output.startswith(again)


@pytest.mark.usefixtures("forked_mergekit")
def test_variants_are_merged_once_and_compared(cache: Path, tmp_path: Path):
    shares = dict.fromkeys(TASKS, 0.25)
    for method in COMPARED:  # all but one, as each takes seconds
        if method != "drm_without_renormalization":
            write_merge(cache, "lora", method, shares, shares)
    # No record of the comparison: of other tasks.
    write_merge(cache, "lora", "drm", {"sums": 1.0}, {"sums": 1.0})
    options = [*few(cache, tmp_path / "a.json"), "--kind", "lora", "--plot", tmp_path / "plots"]
    output = analyse(*options)
    assert "1 of 15 merges to make\n[1/1] lora drm_without_renormalization of 2: " in output
    assert "missing" not in output
    assert analyse(*options).startswith("0 of 15 merges to make\n")
    rows = [" ".join(line.split()) for line in output.splitlines()]
    assert "| direction | drm_vertical | 25.0 | 25.0 |" in rows
    assert (tmp_path / "plots" / "variants.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("name", VARIANTS)
def test_recipes_of_variants(name: str):
    recipe = Merge("full", name, ("a", "b")).recipe(Checkpoints(Path("cache")))
    variant = VARIANTS[name]
    assert name.startswith(recipe["merge_method"])
    assert recipe["parameters"] == {**variant.parameters, "lambda": 1.0}


def test_errors_are_reported(cache: Path):
    options = ["analyse", "--cache", str(cache), "--kind", "lora"]
    result = CliRunner().invoke(main, [*options, "--tasks", "sums,letters", "--size", "2"])
    assert result.exit_code == 1
    assert "no lora fine-tune of sums in " in result.output
    result = CliRunner().invoke(main, [*options, "--tasks", "sums"])
    assert result.exit_code == 2
    assert "--size: there are 1 tasks, not 5" in result.output
