"""The command `demo-files`: small copies of the suite's adapters, and examples of their tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM

from benchmarks.quality.analysing.updates import adapter_update
from benchmarks.quality.checkpoints import Checkpoints, read_record
from benchmarks.quality.scoring import score_tasks
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.tasks.task import END_OF_ANSWER, Example, split
from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.lora import LoraAdapter
from mergekit_spectral.adapters.writing import NewLayer, write_adapter
from mergekit_spectral.demo import MODEL_NAME
from mergekit_spectral.demo.recipes import ADAPTERS, HELD_OUT, TO_TUNE
from mergekit_spectral.spectral import compress

RANK = 4
TUNING_EXAMPLES = 40
CARD = """\
# {task}

An adapter for {base}, trained at rank {full_rank} by
`python -m benchmarks.quality train`; this is the rank {rank} that comes closest to it, in bfloat16.
"""


def export(folder: Path, out: Path) -> None:
    """Write the adapters of the demo's tasks at a smaller rank, and the tasks' examples.

    The validation examples are for tuning, and results are reported on the test examples.

    Args:
        folder: folder of the checkpoints.
        out: folder for `adapters/`, `examples/` and `held_out/`.

    Raises:
        click.ClickException: an adapter has not been trained.
    """
    checkpoints = Checkpoints(folder)
    checkpoints.require(["lora"], ADAPTERS)
    tokenizer = AutoTokenizer.from_pretrained(checkpoints.base)
    tasks = [TASKS[name] for name in ADAPTERS]
    for task in tasks:
        source, adapter = checkpoints.path("lora", task.name), out / "adapters" / task.name
        kept = write_smaller(source, adapter, task.name)
        base = LlamaForCausalLM.from_pretrained(checkpoints.base, dtype=torch.float32)
        score = score_tasks(PeftModel.from_pretrained(base, adapter), tokenizer, [task])[0]
        trained = read_record(source)
        record = {
            "task": task.name,
            "rank": RANK,
            "kept": kept,
            "accuracy": score.exact,
            "held_out_examples": score.examples,
            "trained": {key: trained[key] for key in ("settings", "loss", "after", "versions")},
        }
        (adapter / "training.json").write_text(json.dumps(record, indent=1) + "\n")
        click.echo(f"{task.name}: {kept:.1%} of the update, {score.exact:.0%} of the examples")
        write_examples(out / HELD_OUT / f"{task.name}.jsonl", split(task).test)
        tuning = split(task).validation[:TUNING_EXAMPLES]
        write_examples(out / TO_TUNE / f"{task.name}.jsonl", tuning)


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Write a data set for `mergekit-spectral tune`, which scores whole answers."""
    path.parent.mkdir(exist_ok=True)
    records = ({"prompt": e.prompt, "answer": e.answer + END_OF_ANSWER} for e in examples)
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")


def write_smaller(source: Path, out: Path, name: str) -> float:
    """Write an adapter at rank `RANK`, and return the share of its squared norm that is kept."""
    adapter = LoraAdapter(find_adapter(str(source)))
    layers: dict[str, NewLayer] = {}
    kept, whole = 0.0, 0.0
    for weight in adapter.updates:
        delta = adapter_update(adapter, weight)
        smaller = compress(delta, rank=RANK)
        layers[weight.removesuffix(".weight")] = NewLayer(smaller.delta.B, smaller.delta.A)
        kept += smaller.kept * delta.norm**2
        whole += delta.norm**2
    card = CARD.format(task=name, full_rank=adapter.config.r, base=MODEL_NAME, rank=RANK)
    write_adapter(
        out,
        layers,
        all_modules=layers,
        base_model=MODEL_NAME,
        dtype=torch.bfloat16,
        task_type="CAUSAL_LM",
        card=card,
    )
    return kept / whole
