"""The quality of each merge method, on a small model and ten tasks.

    python -m benchmarks.quality train --kind lora --task plurals --task sums
    python -m benchmarks.quality run --kind lora --tasks plurals,sums --sizes 2
    python -m benchmarks.quality report --plot plots
    python -m benchmarks.quality analyse --plot plots

Needs the extra `quality`: pip install -e '.[quality]'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import click

from benchmarks.options import POSITIVE, F, plot_option, require_matplotlib
from benchmarks.quality.checkpoints import ENVIRONMENT_VARIABLE, default_folder
from benchmarks.quality.merging.methods import METHODS
from benchmarks.quality.merging.plan import SIZES, SUBSETS
from benchmarks.quality.merging.variants import VARIANTS
from benchmarks.quality.training.settings import KINDS, Kind
from mergekit_spectral.command_line.option_types import Listed

RESULTS = Path(__file__).parent / "results"

cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=default_folder,
    help=f"Where the checkpoints are.  [default: ${ENVIRONMENT_VARIABLE}, or "
    "~/.cache/mergekit-spectral/quality]",
)

kind_option = click.option(
    "--kind", type=click.Choice([*KINDS, "both"]), default="both", show_default=True
)
tasks_option = click.option("--tasks", type=Listed(click.STRING), help="All tasks without it.")
device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="For training, merging and scoring.",
)
workers_option = click.option(
    "--workers",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="How many merges are made and scored at the same time.",
)
from_option = click.option(
    "--from",
    "given",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Show the results in this file, which an earlier run wrote, instead of the cache's.",
)


def methods_option(default: str) -> Callable[[F], F]:
    """Make the option that names methods at their published settings."""
    return click.option(
        "--methods",
        type=Listed(click.Choice(list(METHODS))),
        default=default,
        show_default=True,
        help="By their names in recipes.",
    )


def json_option(name: str) -> Callable[[F], F]:
    """Make the option that names the file for the results."""
    return click.option(
        "--json",
        "json_path",
        type=click.Path(path_type=Path, dir_okay=False),
        default=RESULTS / name,
        help=f"File for the results.  [default: {name} in benchmarks/quality/results]",
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the quality of each merge method, on a small model and ten tasks.

    \b
    Examples:
      python -m benchmarks.quality train --kind lora --task plurals --task sums
      python -m benchmarks.quality run --kind lora --tasks plurals,sums --sizes 2
      python -m benchmarks.quality report --plot plots
      python -m benchmarks.quality analyse --plot plots
    """  # noqa: D301, click's mark is the character


@main.command()
@kind_option
@click.option("--task", "tasks", multiple=True, help="May be repeated; all tasks without it.")
@click.option("--steps", type=POSITIVE, help="Of training.  [default: 250 for lora, 150 for full]")
@device_option
@cache_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def train(
    kind: str, tasks: tuple[str, ...], steps: int | None, device: str, cache: Path, seed: int
) -> None:
    """Train a LoRA adapter and a full fine-tune of the base for each task.

    Checkpoints that exist are skipped, so a run that was stopped continues where it was.
    """
    # Late, because it imports torch and transformers, which takes seconds.
    from benchmarks.quality.training.command import train_all

    train_all(cache, _kinds(kind), _known(tasks), steps, seed, device)


@main.command()
@kind_option
@click.option(
    "--methods",
    type=Listed(click.Choice([*METHODS, *VARIANTS])),
    default=",".join(METHODS),
    show_default=True,
    help="By their names in recipes, or variants such as drm_rank_0.25.",
)
@tasks_option
@click.option(
    "--sizes",
    type=Listed(POSITIVE),
    default=",".join(map(str, SIZES)),
    show_default=True,
    help="How many tasks are merged.",
)
@click.option(
    "--subsets",
    "count",
    type=POSITIVE,
    default=SUBSETS,
    show_default=True,
    help="How many random subsets of each size.",
)
@device_option
@workers_option
@cache_option
def run(
    kind: str,
    methods: list[str],
    tasks: list[str] | None,
    sizes: list[int],
    count: int,
    device: str,
    workers: int,
    cache: Path,
) -> None:
    """Merge subsets of the tasks with each method, through mergekit-yaml, and score the merges.

    Each merge is scored on the test examples of its tasks, with the published lambda and with the
    lambda from a grid of eight that is best on validation examples. Merges that have a record are
    skipped, so a run that was stopped continues where it was. One run for each kind can be active
    at the same time.
    """
    from benchmarks.quality.merging.command import run_all

    names = _enough(tasks, max(sizes), "--sizes")
    run_all(cache, _kinds(kind), methods, names, sizes, count, device, workers)


@main.command()
@kind_option
@methods_option("ties,drm,knots_ties")
@tasks_option
@click.option(
    "--counts",
    type=Listed(click.IntRange(min=4)),
    default="20,50,100",
    show_default=True,
    help="How many examples of each task to tune on.",
)
@click.option(
    "--samples",
    type=POSITIVE,
    default=10,
    show_default=True,
    help="How many samples of each number of examples.",
)
@cache_option
@from_option
@json_option("tuning.json")
def tune(
    kind: str,
    methods: list[str],
    tasks: list[str] | None,
    counts: list[int],
    samples: int,
    cache: Path,
    given: Path | None,
    json_path: Path,
) -> None:
    """Measure how much of the best lambda's gain tuning finds, with how many examples.

    Tunes lambda on samples of the validation examples, and scores what was chosen on the test
    examples, beside all of a grid. Scores are kept, so a run that was stopped continues.
    """
    from benchmarks.quality.tuning.command import print_file, tune_all

    if given:
        print_file(given)
    else:
        names = _enough(tasks, 2, "--tasks")
        tune_all(cache, _kinds(kind), methods, names, counts, samples, json_path)


@main.command()
@click.option("--demo", is_flag=True, help="Merge the demo's adapters by the demo's recipes.")
@methods_option("iso,tsvm,knots_ties,drm,star")
@tasks_option
@click.option(
    "--ranks", type=Listed(POSITIVE), default="4,8,16", show_default=True, help="The limits."
)
@click.option(
    "--side", type=click.Choice(["validation", "test"]), default="test", show_default=True
)
@click.option(
    "--count", type=POSITIVE, default=100, show_default=True, help="Examples of each task."
)
@cache_option
@from_option
@json_option("adapter-ranks.json")
def ranks(
    demo: bool,
    methods: list[str],
    tasks: list[str] | None,
    ranks: list[int],
    side: Literal["validation", "test"],
    count: int,
    cache: Path,
    given: Path | None,
    json_path: Path,
) -> None:
    """Measure what a limit on a merged adapter's rank costs in accuracy.

    Merges adapters into one as `mergekit-spectral adapter` does, without a limit and with each
    rank, and compresses the merged update or the inputs, whatever the method does by default.
    """
    from benchmarks.quality.ranks.command import measure_ranks, print_file

    if given:
        print_file(given)
    elif demo and tasks:
        raise click.UsageError("--demo has tasks of its own; leave --tasks out")
    else:
        names = _enough(tasks, 2, "--tasks")
        measure_ranks(cache, demo, methods, names, ranks, side, count, json_path)


@main.command()
@cache_option
@from_option
@json_option("merges.json")
@plot_option
def report(cache: Path, given: Path | None, json_path: Path, plots: Path | None) -> None:
    """Print and draw the results of fine-tunes and merges, and list those that are missing.

    \b
    Examples:
      python -m benchmarks.quality report --plot plots
      python -m benchmarks.quality report --from benchmarks/quality/results/merges.json
    """  # noqa: D301, click's mark is the character
    from benchmarks.quality.reporting.command import report_all, report_file

    require_matplotlib(plots)
    if given:
        report_file(given, plots)
    else:
        report_all(cache, json_path, plots)


@main.command()
@kind_option
@tasks_option
@click.option(
    "--size",
    type=POSITIVE,
    default=5,
    show_default=True,
    help="How many tasks are merged, besides all.",
)
@click.option(
    "--subsets",
    "count",
    type=POSITIVE,
    default=2,
    show_default=True,
    help="How many random subsets of that size.",
)
@click.option(
    "--merge/--no-merge",
    default=True,
    show_default=True,
    help="Make the merges that have no record yet, or use those that exist.",
)
@device_option
@workers_option
@cache_option
@from_option
@json_option("analyses.json")
@plot_option
def analyse(
    kind: str,
    tasks: list[str] | None,
    size: int,
    count: int,
    merge: bool,
    device: str,
    workers: int,
    cache: Path,
    given: Path | None,
    json_path: Path,
    plots: Path | None,
) -> None:
    """Repeat the papers' analyses: ablations, and what single steps do to a weight.

    Merges variants of the methods as `run` does, and looks at four projections of three layers:
    which rows DRM prunes, with and without renormalization, how far the inputs agree in sign, and
    the updates' effective ranks.

    \b
    Examples:
      python -m benchmarks.quality analyse --plot plots
      python -m benchmarks.quality analyse --kind lora --tasks plurals,sums --size 2 --json few.json
      python -m benchmarks.quality analyse --from benchmarks/quality/results/analyses.json
    """  # noqa: D301, click's mark is the character
    from benchmarks.quality.analysing.command import analyse_all, analyse_file
    from benchmarks.quality.merging.variants import COMPARED
    from benchmarks.quality.reporting.outcomes import Planned

    require_matplotlib(plots)
    if given:
        analyse_file(given, plots)
    else:
        names = tuple(_enough(tasks, size, "--size"))
        sizes = tuple(dict.fromkeys((size, len(names))))
        planned = Planned(tuple(_kinds(kind)), COMPARED, names, sizes, count)
        if merge:
            # Late: recorded analyses are drawn without the packages that tasks are made from.
            from benchmarks.quality.merging.command import run_all

            run_all(cache, planned.kinds, COMPARED, names, sizes, count, device, workers)
        analyse_all(cache, planned, json_path, plots)


def _kinds(chosen: str) -> list[Kind]:
    return [kind for kind in KINDS if chosen in (kind, "both")]


def _known(tasks: Sequence[str] | None) -> list[str]:
    """Return the tasks if all exist, or all tasks if none are given."""
    from benchmarks.quality.tasks import TASKS

    names = list(tasks or TASKS)
    if unknown := set(names) - set(TASKS):
        raise click.UsageError(f"there is no task {unknown.pop()!r} among {', '.join(TASKS)}")
    return names


def _enough(tasks: Sequence[str] | None, largest: int, option: str) -> list[str]:
    """Return the tasks if all exist and there are enough to merge `largest` of them."""
    names = _known(tasks)
    if largest > len(names):
        raise click.UsageError(f"{option}: there are {len(names)} tasks, not {largest}")
    return names


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).parents[2] / "recipes" / "smollm2",
    help="Folder for the files.  [default: recipes/smollm2]",
)
@cache_option
def demo_files(out: Path, cache: Path) -> None:
    """Write the demo's adapters, at a smaller rank and in bfloat16, and its examples."""
    from benchmarks.quality.demo_files import export

    export(cache, out)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.quality")
