"""The demo's recipes, adapters and examples, and how a recipe is run and tuned."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning.examples import DataSet, read_data_set

TITLES = {"numbers": "Spanish numbers", "plurals": "plurals", "sentiment": "sentiment"}
ADAPTERS = tuple(TITLES)
METHODS = ("ties", "knots_ties", "drm", "star", "iso", "tsvm", "actmat")
MERGEKIT_YAML = "mergekit.scripts.run_yaml"
MERGEKIT_SPECTRAL = "mergekit_spectral"
HELD_OUT, TO_TUNE = "held_out", "examples"


@dataclass(frozen=True)
class Task:
    """What one adapter was trained on.

    Attributes:
        title: what a table shows.
        data: held-out examples, which the adapter was not trained on. The set has its name.
    """

    title: str
    data: DataSet


def read_tasks() -> list[Task]:
    """Read the adapters' tasks, in the order of `ADAPTERS`."""
    folder = recipe_folder() / HELD_OUT
    return [Task(title, read_data_set(folder / f"{name}.jsonl")) for name, title in TITLES.items()]


def recipe_folder() -> Path:
    """Return the folder with the recipes, the adapters, and the examples of two kinds.

    A clone has it at its root; a wheel has a copy inside the package.
    """
    package = Path(__file__).parents[1]
    in_clone = package.parent / "recipes" / "smollm2"
    return in_clone if in_clone.is_dir() else package / "demo" / "smollm2"


def run_recipe(
    recipe: Path,
    out: Path,
    work_folder: Path,
    copies: Path = Path("copies"),
    options: Sequence[str] = (),
) -> float:
    """Run ``mergekit-yaml`` on `recipe` in `work_folder` and return the seconds it took.

    Args:
        recipe: path of the recipe.
        out: folder for the merged model.
        work_folder: folder for the log; the recipe's relative paths start from it.
        copies: folder for the merged copies that mergekit's own methods make of LoRA inputs.
        options: further options for ``mergekit-yaml``.

    Raises:
        MergeError: mergekit failed; the message ends with the last lines of its output.
    """
    command = [MERGEKIT_YAML, str(recipe), str(out)]
    # mergekit's own ties first merges each adapter into a copy of the base. In the base's bfloat16
    # rounding would remove the small change. The spectral methods make no copies.
    command += ["--lora-merge-cache", str(copies), "--lora-merge-dtype", "float32", *options]
    command += ["--no-write-model-card"]  # the card would ask the hub about each model
    return _run("mergekit-yaml", command, recipe, work_folder, f"{recipe.stem}.log")


def tune_recipe(
    recipe: Path,
    methods: Sequence[str],
    out: Path,
    merged: Path,
    work_folder: Path,
    copies: Path = Path("copies"),
) -> float:
    """Run ``mergekit-spectral tune`` on `recipe` in `work_folder` and return the seconds it took.

    Args:
        recipe: path of the recipe.
        methods: that are compared, besides the recipe's own.
        out: folder for the tuned recipe and the report.
        merged: folder for the model, merged by the tuned recipe.
        work_folder: as for `run_recipe`.
        copies: as for `run_recipe`.

    Raises:
        MergeError: it failed; the message ends with the last lines of its output.
    """
    command = [MERGEKIT_SPECTRAL, "tune", str(recipe), "--methods", ",".join(methods)]
    for name in ADAPTERS:
        command += ["--data", str(recipe_folder() / TO_TUNE / f"{name}.jsonl")]
    command += ["--out", str(out), "--merge", str(merged), "--lora-merge-cache", str(copies)]
    return _run("mergekit-spectral tune", command, recipe, work_folder, "tune.log")


def _run(name: str, command: Sequence[str], recipe: Path, work_folder: Path, log: str) -> float:
    path = work_folder / log
    start = time.perf_counter()
    with path.open("w") as output:
        result = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=work_folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    seconds = time.perf_counter() - start
    if result.returncode != 0:
        end = "".join(path.read_text().splitlines(keepends=True)[-12:])
        raise MergeError(f"{name} failed on {recipe.name}:\n{end}")
    return seconds
