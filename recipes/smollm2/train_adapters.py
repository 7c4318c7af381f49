"""Train the demo's LoRA adapters: one for each task, from a fixed seed, on the CPU.

    python recipes/smollm2/train_adapters.py            # all three: 15 minutes on 2 cores
    python recipes/smollm2/train_adapters.py numbers    # one of them

Needs: pip install 'mergekit-spectral[demo]'
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from mergekit_spectral.demo.base_model import MODEL_NAME, find_gguf, save_base_model
from mergekit_spectral.demo.examples import Example, Task
from mergekit_spectral.demo.scoring import answer_logits, encode, exact_match
from mergekit_spectral.demo.tasks import TASKS

SEED = 17
RANK = 3
ALPHA = 6
BATCH_SIZE = 16
LEARNING_RATE = 2e-3
WARMUP_STEPS = 20
STEPS = {"numbers": 250, "plurals": 300, "sentiment": 150}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def batches(examples: list[Example], count: int) -> Iterator[list[Example]]:
    """Yield `count` batches, reshuffling the examples whenever they run out."""
    order = random.Random(SEED)
    queue: list[Example] = []
    for _ in range(count):
        if len(queue) < BATCH_SIZE:
            queue = order.sample(examples, len(examples))
        yield queue[:BATCH_SIZE]
        queue = queue[BATCH_SIZE:]


def train(task: Task, base: Path, folder: Path) -> dict[str, object]:
    """Train one adapter, save it to `folder`, and return the record of the run."""
    torch.manual_seed(SEED)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    steps = STEPS[task.name]
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.0
    )
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, steps)

    examples = task.train()
    losses = []
    start = time.perf_counter()
    model.train()
    for step, batch in enumerate(batches(examples, steps), start=1):
        encoded = encode(tokenizer, batch)
        loss = cross_entropy(answer_logits(model, encoded), encoded.wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 25 == 0:
            click.echo(f"{task.name}: step {step}/{steps}, loss {sum(losses[-25:]) / 25:.4f}")
    seconds = time.perf_counter() - start

    model.peft_config["default"].base_model_name_or_path = MODEL_NAME
    # Stored as bfloat16: half the size, and no less precise than the base model. Rounding
    # before the evaluation makes the recorded accuracy that of the stored adapter.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16().float()
    # Left on its default, peft would look for the base's vocabulary on the hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    store_as_bfloat16(folder / "adapter_model.safetensors")

    model.eval()
    held_out = task.held_out()
    return {
        "task": task.name,
        "accuracy": exact_match(model, tokenizer, held_out),
        "held_out_examples": len(held_out),
        "train_examples": len(examples),
        "steps": steps,
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "seed": SEED,
        "final_loss": round(sum(losses[-25:]) / 25, 4),
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def store_as_bfloat16(file: Path) -> None:
    """Rewrite a safetensors file in bfloat16."""
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@click.command()
@click.argument("names", metavar="[TASK]...", nargs=-1, type=click.Choice([t.name for t in TASKS]))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).parent / "adapters",
    help="Where the adapters go, one folder each.  [default: adapters/, beside this script]",
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
def main(names: tuple[str, ...], out: Path, threads: int) -> None:
    """Train the LoRA adapter of each TASK on the CPU, or of all three; about 15 minutes."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        save_base_model(find_gguf(base), base)
        for task in TASKS:
            if names and task.name not in names:
                continue
            record = train(task, base, out / task.name)
            click.echo(f"{task.name}: {record['accuracy']:.0%} of the held-out examples")
            (out / task.name / "training.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
