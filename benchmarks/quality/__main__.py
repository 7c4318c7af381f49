"""What each merge method is worth on a small model and ten tasks.

    python -m benchmarks.quality train --kind lora --task plurals --task sums

Needs the extra `quality`: pip install -e '.[quality]'
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.options import POSITIVE
from benchmarks.quality.checkpoints import ENVIRONMENT_VARIABLE, default_folder
from benchmarks.quality.settings import KINDS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure what each merge method is worth on a small model and ten tasks.

    Example: python -m benchmarks.quality train --kind lora --task plurals --task sums
    """


@main.command()
@click.option("--kind", type=click.Choice([*KINDS, "both"]), default="both", show_default=True)
@click.option("--task", "tasks", multiple=True, help="May be repeated; all tasks without it.")
@click.option("--steps", type=POSITIVE, default=150, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_folder,
    help=f"Where the checkpoints are.  [default: ${ENVIRONMENT_VARIABLE}, or "
    "~/.cache/mergekit-spectral/quality]",
)
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


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.quality")
