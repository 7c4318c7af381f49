"""The demo from end to end: make the model, score it and its adapters, merge, tune, score.

What each step has found is recorded. Started again in the same folder, the demo continues after the
last step that was recorded, and repeats the one that was stopped from its beginning.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import torch
from peft import PeftModel
from pydantic import TypeAdapter
from transformers import AutoTokenizer, LlamaForCausalLM

from mergekit_spectral import __version__
from mergekit_spectral.demo import RECORD
from mergekit_spectral.demo.base_model import REQUIREMENT, prepare_base_model
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
from mergekit_spectral.whole_files import Record

LONGEST = 64
"""Tokens of an example, more than any has."""
TUNED = "ties"
"""The recipe that is tuned."""
TUNED_METHODS = ("iso", "tsvm", "drm")
"""Methods that the tuning compares, besides the recipe's own."""
COPIES = "copies"
"""The folder for mergekit's merged copies of the adapters, which the first merge needs."""
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


@dataclass(frozen=True)
class Found:
    """What a step has found, which is one line of the record.

    Attributes:
        title: the step's.
        values: accuracies, or the seconds that a merge took.
    """

    title: str
    values: tuple[float, ...]


def run_demo(work_folder: Path, step: Step) -> list[Row]:
    """Run the demo in a folder that is empty, or in which a demo was stopped.

    Args:
        work_folder: folder for the model, the adapters and the merges.
        step: is entered once for each of the `STEPS` steps.

    Returns:
        The base, the adapters, the merges and the tuned merge, in this order.

    Raises:
        MergeError: the model cannot be downloaded, or a merge or the tuning failed.
    """
    steps = _Steps(work_folder, step)
    adapters = work_folder / "adapters"
    shutil.rmtree(adapters, ignore_errors=True)
    shutil.copytree(recipe_folder() / "adapters", adapters)
    with step("SmolLM2-135M-Instruct, from its GGUF file"):
        base_folder = prepare_base_model(work_folder)

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    sets = [prepare(t.data, t.data.examples, tokenizer, LONGEST) for t in read_tasks()]

    def accuracy(model: LlamaForCausalLM) -> Iterator[float]:
        return (fmean(bool(one.right) for one in score(model, items)) for items in sets)

    def of_model(folder: Path) -> Iterator[float]:
        return accuracy(load(folder))

    def of_adapter(name: str) -> Iterator[float]:
        model = load(base_folder)
        # peft puts the adapter's layers into the model itself.
        PeftModel.from_pretrained(model, adapters / name)
        return accuracy(model)

    rows = [Row("base", steps.take("accuracy of the base", partial(of_model, base_folder)))]
    for name in ADAPTERS:
        found = steps.take(f"accuracy of the adapter {name}", partial(of_adapter, name))
        rows.append(Row(f"adapter {name}", found))
    for method in METHODS:
        out = work_folder / "merged" / method
        merge = partial(_merge, method, out, work_folder)
        (seconds,) = steps.take(f"mergekit-yaml {method}.yml", merge, out)
        found = steps.take(f"accuracy of {method}", partial(of_model, out))
        rows.append(Row(method, found, seconds))
    out = work_folder / "merged" / "tuned"
    (seconds,) = steps.take(
        f"mergekit-spectral tune {TUNED}.yml", partial(_tune, out, work_folder), out
    )
    found = steps.take("accuracy of the tuned merge", partial(of_model, out))
    chosen = json.loads((work_folder / "tuned" / REPORT).read_text())["chosen"]
    return [*rows, Row(f"tuned ({chosen})", found, seconds)]


def _merge(method: str, out: Path, work_folder: Path) -> tuple[float]:
    shutil.rmtree(out, ignore_errors=True)
    if method == METHODS[0]:
        # It makes the copies. mergekit takes one that was stopped half-way for a whole one.
        shutil.rmtree(work_folder / COPIES, ignore_errors=True)
    return (run_recipe(recipe_folder() / f"{method}.yml", out, work_folder, Path(COPIES)),)


def _tune(out: Path, work_folder: Path) -> tuple[float]:
    shutil.rmtree(out, ignore_errors=True)
    recipe, tuned = recipe_folder() / f"{TUNED}.yml", work_folder / "tuned"
    return (tune_recipe(recipe, TUNED_METHODS, tuned, out, work_folder, Path(COPIES)),)


class _Steps:
    """Takes steps that were not taken before, and records what they find.

    Args:
        folder: for the record.
        step: is entered for each step, also for one that was taken before.
    """

    def __init__(self, folder: Path, step: Step):
        self._record = Record(folder / RECORD, _fingerprint(), _LINE, "the demo")
        self._found = {one.title: one.values for one in self._record.steps}
        self._step = step

    def take(
        self, title: str, do: Callable[[], Iterable[float]], out: Path | None = None
    ) -> tuple[float, ...]:
        """Return what a step finds, or found before.

        Args:
            title: the step's.
            do: takes the step.
            out: what it writes, and is to be there if the step was taken before.
        """
        if title in self._found and (out is None or out.exists()):
            with self._step(f"{title}, done before"):
                return self._found[title]
        with self._step(title):
            values = tuple(do())
        self._record.add(Found(title, values))
        return values


def _fingerprint() -> str:
    """Return a digest of the programs, and of the recipes, adapters and examples."""
    digest = hashlib.sha256(repr((__version__, version("mergekit"), REQUIREMENT)).encode())
    for file in sorted(path for path in recipe_folder().rglob("*") if path.is_file()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


_LINE = TypeAdapter(tuple[str, Found])


def load(folder: Path) -> LlamaForCausalLM:
    """Load a model in float32, which is much faster on CPUs without bfloat16 units."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
