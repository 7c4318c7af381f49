"""The demo from end to end: make the model, score it and its adapters, merge, tune, score."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel
from transformers import AutoTokenizer, LlamaForCausalLM

from mergekit_spectral.demo.base_model import MODEL_NAME, find_gguf, save_base_model
from mergekit_spectral.demo.recipes import (
    ADAPTERS,
    METHODS,
    read_tasks,
    recipe_folder,
    run_recipe,
    tune_recipe,
)
from mergekit_spectral.tuning.scoring import prepare, score
from mergekit_spectral.tuning.tune import REPORT

LONGEST = 64
"""Tokens of an example, more than any has."""
TUNED = "ties"
"""The recipe that is tuned."""
TUNED_METHODS = ("iso", "tsvm", "drm")
"""Methods that the tuning compares, besides the recipe's own."""
STEPS = 2 + len(ADAPTERS) + 2 * len(METHODS) + 2

Step = Callable[[str], AbstractContextManager[None]]
"""Given a step's title, returns a context in which the step runs."""


@dataclass(frozen=True)
class Row:
    """The result for one model.

    Attributes:
        model: name for a table.
        accuracy: share of exact answers for each task, in the order of `read_tasks`.
        seconds: time that the merge took, with its tuning if it was tuned; None if nothing was
            merged.
    """

    model: str
    accuracy: tuple[float, ...]
    seconds: float | None = None


def run_demo(work_folder: Path, step: Step) -> list[Row]:
    """Run the demo in the empty folder `work_folder`.

    Args:
        work_folder: folder for the model, the adapters and the merges.
        step: is entered once for each of the `STEPS` steps.

    Returns:
        The base, the adapters, the merges and the tuned merge, in this order.

    Raises:
        MergeError: the model cannot be downloaded, or a merge or the tuning failed.
    """
    base_folder = work_folder / MODEL_NAME
    shutil.copytree(recipe_folder() / "adapters", work_folder / "adapters")
    with step("SmolLM2-135M-Instruct, from its GGUF file"):
        save_base_model(find_gguf(work_folder), base_folder)

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    sets = [prepare(t.data, t.data.examples, tokenizer, LONGEST) for t in read_tasks()]

    def accuracy(model: LlamaForCausalLM) -> tuple[float, ...]:
        return tuple(fmean(bool(one.right) for one in score(model, items)) for items in sets)

    rows = []
    with step("accuracy of the base"):
        rows.append(Row("base", accuracy(load(base_folder))))
    for name in ADAPTERS:
        with step(f"accuracy of the adapter {name}"):
            model = load(base_folder)
            # peft puts the adapter's layers into the model itself.
            PeftModel.from_pretrained(model, work_folder / "adapters" / name)
            rows.append(Row(f"adapter {name}", accuracy(model)))
    for method in METHODS:
        recipe = recipe_folder() / f"{method}.yml"
        out = work_folder / "merged" / method
        with step(f"mergekit-yaml {recipe.name}"):
            seconds = run_recipe(recipe, out, work_folder)
        with step(f"accuracy of {method}"):
            rows.append(Row(method, accuracy(load(out)), seconds))
    recipe, out = recipe_folder() / f"{TUNED}.yml", work_folder / "merged" / "tuned"
    with step(f"mergekit-spectral tune {recipe.name}"):
        seconds = tune_recipe(recipe, TUNED_METHODS, work_folder / "tuned", out, work_folder)
    with step("accuracy of the tuned merge"):
        chosen = json.loads((work_folder / "tuned" / REPORT).read_text())["chosen"]
        rows.append(Row(f"tuned ({chosen})", accuracy(load(out)), seconds))
    return rows


def load(folder: Path) -> LlamaForCausalLM:
    """Load a model in float32, which is much faster on CPUs without bfloat16 units."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
