from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM

from benchmarks.quality.__main__ import main
from benchmarks.quality.checkpoints import Checkpoints, read_record
from benchmarks.quality.tasks.task import Example
from benchmarks.quality.training import fine_tunes
from benchmarks.quality.training.loop import shuffled_batches, train
from benchmarks.quality.training.settings import Settings

EXAMPLES = [Example(f"{a}{b} is", f" {b}{a}") for a in "abcdefg" for b in "hijkl"]
SETTINGS = replace(
    Settings.default("full", "none", steps=30, seed=0), learning_rate=1e-2, batch_size=8
)


def test_the_loss_falls_and_is_recorded(model, tokenizer):
    lines = []
    curve = train(model, tokenizer, EXAMPLES, SETTINGS, lambda *line: lines.append(line))
    assert list(curve.items()) == lines
    assert list(curve) == [10, 20, 30]
    assert curve[30] < 0.5 * curve[10]


def test_the_curve_ends_with_the_last_step(model, tokenizer):
    settings = replace(SETTINGS, steps=12)
    assert list(train(model, tokenizer, EXAMPLES, settings, lambda *_: None)) == [10, 12]


def test_a_pass_takes_each_example_at_most_once(tokenizer):
    def read(seed: int) -> list[str]:
        batches = islice(shuffled_batches(tokenizer, EXAMPLES, 8, seed), 8)
        return [tokenizer.decode(row[:2]) for batch in batches for row in batch.input_ids]

    prompts = read(seed=1)
    first, second = prompts[:32], prompts[32:]
    assert len(set(first)) == len(set(second)) == 32  # of 35
    assert first != second
    assert read(seed=1) == prompts != read(seed=2)


@pytest.fixture
def cache(tmp_path: Path, model, tokenizer) -> Path:
    """A folder with a tiny base."""
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path


def run(cache: Path, *options: str, steps: int = 3):
    command = ["train", "--cache", str(cache), "--steps", str(steps), *options]
    return CliRunner().invoke(main, command)


def modified(cache: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in cache.rglob("*")}


def test_trains_both_kinds(cache: Path, model):
    result = run(cache, "--task", "parts_of_speech")
    assert result.exit_code == 0, result.output
    assert "[1/2] lora parts_of_speech: step 3/3, loss " in result.output
    assert result.output.endswith("% of 100 test examples right\n")

    checkpoints = Checkpoints(cache)
    lora, full = (checkpoints.path(kind, "parts_of_speech") for kind in ("lora", "full"))
    before = model.state_dict()
    after = LlamaForCausalLM.from_pretrained(full, dtype="auto").state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    config = LoraConfig.from_pretrained(lora)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0)
    assert len(config.target_modules) == 7
    adapted = PeftModel.from_pretrained(model, lora).state_dict()
    assert all(tensor.any() for name, tensor in adapted.items() if "lora_" in name)

    record = read_record(lora)
    assert record["settings"]["steps"] == 3
    assert list(record["loss"]) == ["3"]
    assert record["before"]["test"]["choice"] > 0
    assert record["after"].keys() == {"validation", "test"}
    assert f" {record['after']['test']['choice']:.0%} of 100 " in result.output
    assert record["versions"].keys() > {"torch", "transformers", "peft", "mergekit", "lemminflect"}


def test_goes_on_where_it_was_stopped(cache: Path, monkeypatch: pytest.MonkeyPatch):
    options = ("--kind", "full", "--task", "sums", "--task", "letters")
    save = fine_tunes.write_record

    def stop_at_letters(folder: Path, **record):
        if record["settings"]["task"] == "letters":
            raise KeyboardInterrupt
        save(folder, **record)

    monkeypatch.setattr(fine_tunes, "write_record", stop_at_letters)
    assert run(cache, *options).exit_code == 1
    assert (cache / "full" / "sums").is_dir()
    assert not (cache / "full" / "letters").exists()
    sums = modified(cache / "full" / "sums")

    monkeypatch.setattr(fine_tunes, "write_record", save)
    result = run(cache, *options)
    assert result.output.startswith(f"1 of 2 checkpoints to train in {cache}\n")
    assert "sums" not in result.output
    assert modified(cache / "full" / "sums") == sums
    assert sorted(path.name for path in (cache / "full").iterdir()) == ["letters", "sums"]

    everything = modified(cache)
    assert run(cache, *options).output == f"0 of 2 checkpoints to train in {cache}\n"
    assert modified(cache) == everything


def test_other_settings_are_refused_before_anything_is_trained(cache: Path):
    run(cache, "--kind", "lora", "--task", "sums")
    everything = modified(cache)
    result = run(cache, "--kind", "lora", "--task", "letters", "--task", "sums", steps=4)
    assert result.exit_code == 1
    assert "was trained with other settings ({'steps': 3})" in result.output
    assert modified(cache) == everything


def test_equal_seeds_make_equal_adapters(cache: Path):
    path = cache / "lora" / "sums"
    seen = []
    for seed in ("1", "1", "2"):
        run(cache, "--kind", "lora", "--task", "sums", "--seed", seed)
        seen.append((path / "adapter_model.safetensors").read_bytes())
        path.rename(cache / f"kept-{len(seen)}")
    assert seen[0] == seen[1] != seen[2]


def test_unknown_tasks_are_named(cache: Path):
    result = run(cache, "--task", "poetry")
    assert result.exit_code == 2
    assert "there is no task 'poetry' among numbers, plurals, " in result.output
