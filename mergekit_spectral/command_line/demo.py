"""Options of ``mergekit-spectral demo``; `demo_run` does the work."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import click

from mergekit_spectral.command_line.command import Command, progress_console


@click.command(
    cls=Command, short_help="Merge, tune and compare three LoRA adapters of a small model."
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the models and merges in this folder, which must be empty or new (about 3 GB). "
    "Without it they go into a temporary folder and are deleted.",
)
def demo(work_dir: Path | None) -> None:
    """Merge three LoRA adapters into SmolLM2-135M-Instruct, seven ways, tune, and compare.

    \b
    Example:
      mergekit-spectral demo --work-dir merges/
    """  # noqa: D301, click's mark is the character
    if find_spec("gguf") is None:
        raise click.ClickException(
            "the demo needs its extra: pip install 'mergekit-spectral[demo]'"
        )
    if work_dir is not None and work_dir.is_dir() and any(work_dir.iterdir()):
        raise click.ClickException(f"{work_dir} is not empty; name an empty or a new folder")

    # Late, because it imports torch and transformers, which takes seconds.
    from mergekit_spectral.command_line.demo_run import run_and_print

    if work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
        run_and_print(work_dir.resolve(), progress_console())
        return
    with tempfile.TemporaryDirectory(prefix="mergekit-spectral-demo-") as folder:
        run_and_print(Path(folder), progress_console())
