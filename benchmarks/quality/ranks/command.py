"""The command `ranks`: merge adapters into one of a smaller rank, and score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.machine import write_json
from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.ranks.measure import Adapter, Scorer
from benchmarks.quality.ranks.tables import Results, print_results
from benchmarks.quality.reporting.outcomes import read_lines
from benchmarks.quality.scoring import Side
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.demo.recipes import ADAPTERS, recipe_folder

Recipe = dict[str, Any]


def measure_ranks(
    folder: Path,
    demo: bool,
    methods: Sequence[str],
    tasks: Sequence[str],
    ranks: Sequence[int],
    side: Side,
    count: int,
    json_path: Path,
) -> None:
    """Merge and score with no limit and with each rank, in both ways of compression.

    Args:
        folder: the checkpoints'.
        demo: whether to merge the demo's adapters by the demo's recipes, instead.
        methods: by name.
        tasks: whose adapters are merged; the demo has its own.
        ranks: the limits.
        side: of the tasks, from which examples are scored.
        count: how many examples of each task.
        json_path: file of the results.

    Raises:
        click.ClickException: the base or an adapter is missing.
        MergeError: a merge failed.
    """
    silence_transformers()
    checkpoints = Checkpoints(folder)
    tasks = ADAPTERS if demo else tasks
    checkpoints.require([] if demo else ["lora"], tasks)
    base = checkpoints.base
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    scorer = Scorer(model, AutoTokenizer.from_pretrained(base), tasks, side, count)
    folders = recipe_folder() / "adapters" if demo else checkpoints.folder / "lora"
    alone = {task: scorer.alone(task, folders / task) for task in tasks}
    found: list[Adapter] = []
    make = _demo_recipe if demo else _recipe
    for method in methods:
        recipe = make(checkpoints, method, tasks)
        for rank, inputs_compressed in ((None, False), *product(ranks, (False, True))):
            limit = f"rank {rank} of the {'inputs' if inputs_compressed else 'merged update'}"
            click.echo(f"{method}, {limit if rank else 'no limit'}", err=True)
            found.append(scorer.merged(recipe, rank, inputs_compressed))
            results = Results(demo, side, count, tuple(tasks), alone, tuple(found))
            # Now, because a long run may not reach its end.
            write_json(json_path, **asdict(results))
    print_file(json_path)


def print_file(path: Path) -> None:
    """Print the results in a file."""
    print_results(read_lines(path, Results))


def _recipe(checkpoints: Checkpoints, method: str, tasks: Sequence[str]) -> Recipe:
    return Merge("lora", method, tuple(tasks)).recipe(checkpoints)


def _demo_recipe(checkpoints: Checkpoints, method: str, tasks: Sequence[str]) -> Recipe:
    folder = recipe_folder()
    recipe: Recipe = yaml.safe_load((folder / f"{method}.yml").read_text())
    base = str(checkpoints.base)
    models: list[Mapping[str, Any]] = [
        {"model": f"{base}+{folder / 'adapters' / task}"} for task in tasks
    ]
    return {**recipe, "base_model": base, "models": models}
