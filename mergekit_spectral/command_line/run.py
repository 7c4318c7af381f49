"""Options of ``mergekit-spectral run``; `run_run` does the work."""

from __future__ import annotations

import multiprocessing
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from mergekit_spectral.command_line.command import (
    Command,
    is_verbose,
    mergekit_options,
    progress_console,
)

WORKER = "mergekit_spectral.scaling.worker"
_AS_MERGEKIT = "The same as for mergekit-yaml."
_ADDRESS = re.compile(r"auto|local|.+://.+|[^/\\]+:\d+")


class _Run(Command):
    """A command with ``--ray [ADDRESS]`` anywhere among its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click takes whatever follows for the address, also the recipe.
        args = [
            "--ray=" if arg == "--ray" and not _ADDRESS.fullmatch(after) else arg
            for arg, after in pairwise((*args, ""))
        ]
        return super().parse_args(ctx, args)


@click.command(cls=_Run, short_help="Merge with all cores, GPUs or machines.")
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes that merge at a time; the cores are shared among them.  [default: as many as "
    "cores and free memory allow]",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Merge on the Ray cluster at this address (auto, or HOST:PORT), or start one on this "
    "machine. All nodes must see the models and OUT under the same paths.",
)
@click.option("--restart", is_flag=True, help="Start over if there is an unfinished merge in OUT.")
@click.option("--cuda", is_flag=True, help="Merge on GPUs, one worker for each.")
@click.option("--device", help="Merge on this device.")
@click.option("--num-threads", "-j", type=click.IntRange(min=1), help="Threads of each worker.")
@click.option("--random-seed", type=int, default=0, show_default=True, help=_AS_MERGEKIT)
@click.option("--out-shard-size", default="5B", show_default=True, help=_AS_MERGEKIT)
@click.option("--copy-tokenizer/--no-copy-tokenizer", default=True, help=_AS_MERGEKIT)
@click.option("--write-model-card/--no-write-model-card", default=True, help=_AS_MERGEKIT)
@click.option("--lora-merge-dtype", help=_AS_MERGEKIT)
@click.option("--transformers-cache", help=_AS_MERGEKIT)
@click.option("--low-cpu-memory", is_flag=True, help=_AS_MERGEKIT)
@click.option("--read-to-gpu", is_flag=True, help=_AS_MERGEKIT)
@click.option("--lazy-unpickle", is_flag=True, help=_AS_MERGEKIT)
@click.option("--clone-tensors", is_flag=True, help="Accepted, and not needed.")
@click.option("--unsafe-truncate-embeddings", is_flag=True, help=_AS_MERGEKIT)
@mergekit_options
def run(recipe: Path, out: Path, transformers_cache: str | None, **options: Any) -> None:
    """Merge RECIPE into the folder OUT with all cores, GPUs or machines.

    Takes recipes of any method, and writes the files that mergekit-yaml writes. A merge that was
    stopped continues where it was, if the same command is run again. OUT has a configuration and
    an index of weights only when all of it is there.

    \b
    Examples:
      mergekit-spectral run recipe.yml merged/
      mergekit-spectral run recipe.yml merged/ --workers 4
      mergekit-spectral run recipe.yml /shared/merged --ray 10.0.0.1:6379
    """  # noqa: D301, click's mark is the character
    if transformers_cache:
        os.environ["HF_HUB_CACHE"] = transformers_cache  # before huggingface_hub reads it
    # Workers import transformers themselves.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    on_cpu = not options["cuda"] and options["device"] in (None, "cpu")
    if options["workers"] != 1 and options["ray"] is None and on_cpu:
        import_for_workers()
    from mergekit_spectral.command_line.run_run import run_and_print

    run_and_print(recipe, out, **options, console=progress_console(), verbose=is_verbose())


def import_for_workers() -> None:
    """Begin to import what workers need, in the process that they are forked from."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.get_context("forkserver").set_forkserver_preload([WORKER])
        from multiprocessing import forkserver

        forkserver.ensure_running()
