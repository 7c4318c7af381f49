"""Where the demo's recipes and adapters are, and how a recipe is run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

ADAPTERS = ("numbers", "plurals", "sentiment")
METHODS = ("ties", "knots_ties", "drm", "star")
MERGEKIT_YAML = "mergekit.scripts.run_yaml"


def recipe_folder() -> Path:
    """Find the folder with the recipes and, in ``adapters/``, what they merge.

    A clone has it at its root; a wheel carries a copy inside the package.
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
        recipe: the recipe.
        out: where the merged model goes.
        work_folder: where the recipe's relative paths start, and the log goes.
        copies: where mergekit puts the merged copies that its own methods need of LoRA inputs.
        options: more of them for ``mergekit-yaml``.

    Raises:
        click.ClickException: mergekit failed; the message ends with the end of its output.
    """
    command = [sys.executable, "-m", MERGEKIT_YAML, str(recipe), str(out)]
    # mergekit's own ties merges each adapter into a copy of the base first, in float32 lest the
    # base's bfloat16 round the small change away. The spectral methods make no copies.
    command += ["--lora-merge-cache", str(copies), "--lora-merge-dtype", "float32", *options]
    command += ["--no-write-model-card"]  # the card asks the hub about each model
    log = work_folder / f"{recipe.stem}.log"
    start = time.perf_counter()
    with log.open("w") as output:
        result = subprocess.run(
            command,
            cwd=work_folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    seconds = time.perf_counter() - start
    if result.returncode != 0:
        end = "".join(log.read_text().splitlines(keepends=True)[-12:])
        raise click.ClickException(f"mergekit-yaml failed on {recipe.name}:\n{end}")
    return seconds
