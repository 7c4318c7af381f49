"""Options of ``mergekit-spectral tune``; `tune_run` does the work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from mergekit_spectral.command_line.command import Command, mergekit_options, progress_console
from mergekit_spectral.command_line.option_types import (
    Directions,
    Duration,
    Interval,
    Listed,
    MethodName,
)


@click.command(cls=Command, short_help="Find the best λ, density and method by your own examples.")
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--data",
    multiple=True,
    metavar="FILE[=INPUT]",
    help="Examples with answers: a .jsonl or .json file, or a folder of them. May be repeated. "
    "INPUT is the input that was trained for these examples, by its name in the recipe or its "
    "number from 1: scores are then shares of that input's own.",
)
@click.option(
    "--text",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Text for perplexity: a file, or a folder of files. May be repeated.",
)
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAME[=INPUT],...",
    help="Tasks or groups of tasks of lm-evaluation-harness, each scored by its own metric. Or a "
    "YAML file with `tasks:`, as mergekit-evolve has it. May be repeated.",
)
@click.option(
    "--task-search-path",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder with YAML files of your own tasks. May be repeated.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("tuned"),
    show_default=True,
    help="Folder for tuned.yml and the report. A tuning of the same recipe and models that was "
    "stopped continues there.",
)
@click.option(
    "--methods",
    type=Listed(MethodName()),
    help="Merge methods to compare, besides the recipe as it is.  [default: the recipe's]",
)
@click.option(
    "--density",
    type=Listed(click.FloatRange(0, 1, min_open=True)),
    help="Densities to compare, for methods that have one.  [default: the recipe's]",
)
@click.option(
    "--rank",
    type=Listed(Directions()),
    help="Ranks to compare, for methods that have one: numbers of directions (512) or shares of "
    "them (0.25).  [default: the recipe's]",
)
@click.option(
    "--lambda",
    "lambda_",
    type=Interval(),
    default="0.1:3",
    show_default=True,
    help="Range of λ. If the recipe's own λ is a gradient or has filters, the range of a factor of "
    "it.",
)
@click.option("--weights", is_flag=True, help="Tune the inputs' weights, too (up to 5 inputs).")
@click.option(
    "--objective",
    type=click.Choice(["mean", "worst", "normalized"]),
    default="mean",
    show_default=True,
    help="What is maximized: the mean of the data sets, the worst of them, or the mean of their "
    "shares of what the best input scores on each.",
)
@click.option("--limit", type=click.IntRange(min=2), help="Use at most this many examples of each.")
@click.option("--budget", type=Duration(), help="Time for the search, such as 30m.")
@click.option("--device", help="Device that merges and scores.  [default: a GPU if there is one]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Dtype in which models are scored.  [default: bfloat16 on a GPU, float32 on a CPU]",
)
@click.option(
    "--merge",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the model, merged by the tuned recipe.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@mergekit_options
def tune(
    recipe: Path,
    data: tuple[str, ...],
    text: tuple[Path, ...],
    tasks: tuple[str, ...],
    **options: Any,
) -> None:
    """Find the λ, density, rank and method for RECIPE that are best on your examples.

    One half of the examples chooses, the other half reports. Each candidate is merged once, and
    scored at several λ. Writes tuned.yml, the recipe with the values that were found, report.json,
    and index.html, a page that shows what was found.

    \b
    Examples:
      mergekit-spectral tune recipe.yml --data math.jsonl --data chat.jsonl
      mergekit-spectral tune recipe.yml --text wiki.txt --methods ties,drm
      mergekit-spectral tune recipe.yml --data chat/ --budget 30m
      mergekit-spectral tune recipe.yml --tasks my_task,gsm8k=2
    """  # noqa: D301, click's mark is the character
    if not data and not text and not tasks:
        raise click.UsageError("give examples with --data, text with --text, or --tasks.")
    if not tasks:  # whose data sets may be downloaded; `tune` itself downloads nothing else
        os.environ["HF_HUB_OFFLINE"] = "1"  # set before huggingface_hub reads it, on import
    from mergekit_spectral.command_line.tune_run import tune_and_print

    tune_and_print(recipe, data, text, tasks, **options, console=progress_console())
