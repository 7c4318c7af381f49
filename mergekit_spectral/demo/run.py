"""The demo from end to end: make the model, score it, merge four ways, print one table."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import transformers
from peft import PeftModel
from rich.console import Console
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.demo.base_model import (
    MODEL_NAME,
    find_gguf,
    save_base_model,
)
from mergekit_spectral.demo.examples import HELD_OUT_EXAMPLES
from mergekit_spectral.demo.recipes import (
    ADAPTERS,
    METHODS,
    recipe_folder,
    run_recipe,
)
from mergekit_spectral.demo.scoring import exact_match
from mergekit_spectral.demo.tasks import TASKS


@dataclass(frozen=True)
class Row:
    """One line of the table: a model, its accuracy on each task, its merge's seconds."""

    model: str
    accuracy: tuple[float, ...]
    seconds: float | None = None


def run_demo(work_folder: Path, console: Console) -> list[Row]:
    """Run the demo in the empty folder `work_folder` and print its table.

    Args:
        work_folder: for all that it makes.
        console: for its progress.

    Raises:
        click.ClickException: the model cannot be had, or a merge failed.
    """
    start = time.perf_counter()
    silence_transformers()
    step = Steps(console, total=2 + len(ADAPTERS) + 2 * len(METHODS)).step
    base_folder = work_folder / MODEL_NAME
    shutil.copytree(recipe_folder() / "adapters", work_folder / "adapters")

    with step("SmolLM2-135M-Instruct, out of its GGUF file"):
        gguf = find_gguf(work_folder)
        with redirect_stderr(io.StringIO()):  # a progress bar that has no switch
            save_base_model(gguf, base_folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_folder)
    rows = []
    with step("accuracy of the base"):
        rows.append(Row("base", score(load(base_folder), tokenizer)))
    for name in ADAPTERS:
        with step(f"accuracy of the adapter {name}"):
            adapted = PeftModel.from_pretrained(load(base_folder), work_folder / "adapters" / name)
            rows.append(Row(f"adapter {name}", score(adapted, tokenizer)))

    for method in METHODS:
        recipe = recipe_folder() / f"{method}.yml"
        out = work_folder / "merged" / method
        with step(f"mergekit-yaml {recipe.name}"):
            seconds = run_recipe(recipe, out, work_folder)
        with step(f"accuracy of {method}"):
            rows.append(Row(method, score(load(out), tokenizer), seconds))

    print_rows(rows, time.perf_counter() - start)
    return rows


class Steps:
    """Shows the step at work with its number, and one line with its time once it is done."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.done = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, then run the body."""
        self.done += 1
        number = f"[{self.done:>2}/{self.total}]".replace("[", "\\[")
        start = time.perf_counter()
        with self.console.status(f"{number} {title}"):
            yield
        self.console.print(f"{number} {title} [dim]{time.perf_counter() - start:.1f} s[/]")


def load(folder: Path) -> LlamaForCausalLM:
    """Load a model for scoring; float32, as CPUs without bfloat16 units crawl otherwise."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def score(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[float, ...]:
    """Accuracy on each task's held-out examples, in the order of `TASKS`."""
    return tuple(exact_match(model, tokenizer, task.held_out()) for task in TASKS)


def print_rows(rows: list[Row], seconds: float) -> None:
    """Print the demo's result, with the time that the whole of it took."""
    print_table(
        "SmolLM2-135M-Instruct: exact answers to held-out examples",
        ("model", *(task.title for task in TASKS), "mean", "merge"),
        [
            (
                row.model,
                *(f"{a:.0%}" for a in (*row.accuracy, fmean(row.accuracy))),
                "" if row.seconds is None else f"{row.seconds:.1f} s",
            )
            for row in rows
        ],
        words=("model",),
        notes=(
            f"{HELD_OUT_EXAMPLES} examples a task, none of them trained on. The time of ties "
            "includes the merged copies that mergekit makes for its own methods.",
            f"Everything took {seconds:.0f} s on {torch.get_num_threads()} threads.",
        ),
    )
