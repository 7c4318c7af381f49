"""What each merge method is worth on a small model and ten tasks.

    python -m benchmarks.quality train --kind lora --task plurals --task sums

Needs the extra `quality`: pip install -e '.[quality]'
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.options import POSITIVE, Listed
from benchmarks.quality.checkpoints import ENVIRONMENT_VARIABLE, default_folder
from benchmarks.quality.methods import METHODS
from benchmarks.quality.settings import KINDS

cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_folder,
    help=f"Where the checkpoints are.  [default: ${ENVIRONMENT_VARIABLE}, or "
    "~/.cache/mergekit-spectral/quality]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure what each merge method is worth on a small model and ten tasks.

    Example: python -m benchmarks.quality train --kind lora --task plurals --task sums
    """


@main.command()
@click.option("--kind", type=click.Choice([*KINDS, "both"]), default="both", show_default=True)
@click.option("--task", "tasks", multiple=True, help="May be repeated; all tasks without it.")
@click.option("--steps", type=POSITIVE, default=100, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@cache_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def train(
    kind: str, tasks: tuple[str, ...], steps: int, device: str, cache: Path, seed: int
) -> None:
    """Train a LoRA adapter and a full fine-tune of the base for each task.

    Checkpoints that are there already are skipped, so a run that was stopped goes on where it was.
    """
    # Late, because it imports torch and transformers, which takes seconds.
    from benchmarks.quality.train import train_all

    kinds = [name for name in KINDS if kind in (name, "both")]
    train_all(cache, kinds, list(tasks), steps, seed, device)


@main.command()
@click.option("--kind", type=click.Choice([*KINDS, "both"]), default="both", show_default=True)
@click.option(
    "--methods",
    type=Listed(click.Choice(list(METHODS))),
    default=",".join(METHODS),
    show_default=True,
    help="By their names in recipes.",
)
@click.option("--tasks", type=Listed(click.STRING), help="All tasks without it.")
@click.option(
    "--sizes",
    type=Listed(POSITIVE),
    default="2,4,7,10",
    show_default=True,
    help="How many tasks are merged.",
)
@click.option(
    "--subsets",
    "count",
    type=POSITIVE,
    default=3,
    show_default=True,
    help="How many random subsets of each size.",
)
@cache_option
def run(
    kind: str,
    methods: list[str],
    tasks: list[str] | None,
    sizes: list[int],
    count: int,
    cache: Path,
) -> None:
    """Merge subsets of the tasks with each method, through mergekit-yaml, and score the merges.

    Each merge is scored on the test examples of the tasks that it was made of, with the published
    lambda and with the one of six that does best on validation examples. Merges that were scored
    before are skipped, so a run that was stopped goes on where it was.
    """
    from benchmarks.quality.run import run_all
    from benchmarks.quality.tasks import TASKS

    names = tasks or list(TASKS)
    if unknown := set(names) - set(TASKS):
        raise click.UsageError(f"there is no task {unknown.pop()!r} among {', '.join(TASKS)}")
    if max(sizes) > len(names):
        raise click.UsageError(f"--sizes: there are {len(names)} tasks, not {max(sizes)}")
    run_all(cache, [name for name in KINDS if kind in (name, "both")], methods, names, sizes, count)


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).parents[2] / "recipes" / "smollm2" / "adapters",
    help="Where they go, one folder each.  [default: the demo's]",
)
@cache_option
def demo_adapters(out: Path, cache: Path) -> None:
    """Write the adapters of the demo's tasks at a smaller rank, in bfloat16."""
    from benchmarks.quality.demo_adapters import export

    export(cache, out)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.quality")
