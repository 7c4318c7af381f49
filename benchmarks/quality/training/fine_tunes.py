"""Fine-tunes of the base: made, scored before and after, and saved with their record."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from benchmarks.machine import machine, versions
from benchmarks.quality.checkpoints import Checkpoints, completed, write_record
from benchmarks.quality.scoring import Model, Side, TaskScore, score_tasks
from benchmarks.quality.tasks.task import Task, split
from benchmarks.quality.training.loop import train
from benchmarks.quality.training.settings import Settings
from mergekit_spectral.demo.base_model import find_gguf, save_base_model

PACKAGES = ("transformers", "peft", "babel", "inflect", "lemminflect", "num2words", "wonderwords")
RECORDED_SIDES: tuple[Side, ...] = ("validation", "test")
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_base(checkpoints: Checkpoints) -> None:
    """Write the base if it is not there.

    Raises:
        click.ClickException: the model cannot be had.
    """
    if not checkpoints.base.exists():
        with completed(checkpoints.base) as folder, TemporaryDirectory() as downloads:
            save_base_model(find_gguf(Path(downloads)), folder)


def fine_tune(
    checkpoints: Checkpoints,
    task: Task,
    settings: Settings,
    device: str,
    report: Callable[[int, float], None],
) -> TaskScore:
    """Train one checkpoint, save it, and return its score on the test examples."""
    start = time.perf_counter()
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints.base)
    # float32, in which the steps of training are not rounded away.
    base = AutoModelForCausalLM.from_pretrained(
        checkpoints.base, dtype=torch.float32, device_map=device
    )
    before = _scores(base, tokenizer, task)
    model = base if settings.rank is None else with_adapter(base, settings.rank)
    examples = split(task).train
    trained = time.perf_counter()
    curve = train(model, tokenizer, examples, settings, report)
    training_seconds = time.perf_counter() - trained
    after = _scores(model, tokenizer, task)

    checkpoints.forget(settings.kind, settings.task)
    with completed(checkpoints.path(settings.kind, settings.task)) as folder:
        _save(model, tokenizer, folder)
        write_record(
            folder,
            settings=asdict(settings),
            train_examples=len(examples),
            loss=curve,
            before={side: asdict(score) for side, score in before.items()},
            after={side: asdict(score) for side, score in after.items()},
            seconds={"training": training_seconds, "all": time.perf_counter() - start},
            device=device,
            machine=machine(),
            versions={**versions(), **{name: version(name) for name in PACKAGES}},
        )
    return after["test"]


def with_adapter(base: PreTrainedModel, rank: int) -> Model:
    """Put a LoRA adapter on all attention and MLP projections."""
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=PROJECTIONS, task_type="CAUSAL_LM"
    )
    return get_peft_model(base, lora)


def _scores(model: Model, tokenizer: PreTrainedTokenizerBase, task: Task) -> dict[Side, TaskScore]:
    return {side: score_tasks(model, tokenizer, [task], side)[0] for side in RECORDED_SIDES}


def _save(model: Model, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    if isinstance(model, PreTrainedModel):
        # In float32, as it was trained: an update of 40 steps, rounded to bfloat16 with the
        # weights, was off by 0.73 of its norm, and two thirds of its entries were gone.
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    else:
        # Left on its default, peft would look for the base's vocabulary on the hub.
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
