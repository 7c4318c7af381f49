"""Options of ``mergekit-spectral demo``; `demo_run` does the work."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path

import click

from mergekit_spectral.command_line.command import Command, progress_console
from mergekit_spectral.demo import MODEL_NAME, RECORD
from mergekit_spectral.errors import MergeError, needs_extra


@click.command(
    cls=Command, short_help="Merge, tune and compare three LoRA adapters of a small model."
)
@click.option(
    "--work-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the models and merges in this folder, which must be empty or new, or have a demo "
    "that was stopped, which then continues (about 3 GB). Without it they go into a temporary "
    "folder and are deleted.",
)
@click.option(
    "--base-only",
    is_flag=True,
    help="Only write the base model, to its place below the folder where its recipes are run: "
    "--work-dir, or the working directory. Prints the path.",
)
def demo(work_dir: Path | None, base_only: bool) -> None:
    """Merge three LoRA adapters into SmolLM2-135M-Instruct, seven ways, tune, and compare.

    \b
    Examples:
      mergekit-spectral demo --work-dir merges/
      cd recipes/smollm2/ && mergekit-spectral demo --base-only
    """  # noqa: D301, click's mark is the character
    if find_spec("gguf") is None:
        raise MergeError(needs_extra("the demo", "demo"))
    if work_dir is not None and not base_only and not _is_ours(work_dir):
        raise click.ClickException(f"{work_dir} is not empty; name an empty or a new folder")

    # Late, because it imports torch and transformers, which takes seconds.
    from mergekit_spectral.command_line.demo_run import prepare_and_print, run_and_print

    if base_only:
        prepare_and_print(work_dir or Path("."), progress_console())
    elif work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
        run_and_print(work_dir.resolve(), progress_console())
    else:
        with tempfile.TemporaryDirectory(prefix="mergekit-spectral-demo-") as folder:
            run_and_print(Path(folder), progress_console())


def _is_ours(folder: Path) -> bool:
    """Whether a folder has nothing that is not the demo's."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return RECORD in names or names <= {MODEL_NAME.split("/")[0]}
