"""Options of ``mergekit-spectral inspect``; `inspect_run` does the work."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mergekit_spectral.command_line.command import Command, mergekit_options, progress_console
from mergekit_spectral.errors import MergeError, needs_extra
from mergekit_spectral.reporting.extra import is_installed


@click.command(
    cls=Command, short_help="Show where models agree or conflict, and how to merge them."
)
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="The folder for the report. An inspection of the same recipe and models that was stopped "
    "continues there.",
)
@click.option(
    "--tensors", metavar="GLOB", help="Inspect only tensors whose names match, such as *.mlp.*"
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    help="Inspect only this number of weights of each kind, evenly over the layers.",
)
@mergekit_options
def inspect(
    recipe: Path,
    out: Path,
    tensors: str | None,
    sample: int | None,
    lora_merge_cache: str | None,
    allow_crimes: bool,
    trust_remote_code: bool,
) -> None:
    """Decide from the inputs of RECIPE which to merge, with which method and parameters.

    Prints the verdict and the recommended recipe. Writes report.json, recommended.yml, plots and
    index.html, one page that contains all of them.

    \b
    Examples:
      mergekit-spectral inspect recipe.yml --out report/
      mergekit-spectral inspect recipe.yml --sample 4 --tensors '*self_attn*'
    """  # noqa: D301, click's mark is the character
    if not is_installed():
        raise MergeError(needs_extra("inspect", "report"))
    os.environ["HF_HUB_OFFLINE"] = "1"  # set before huggingface_hub reads it, on import
    from mergekit_spectral.command_line.inspect_run import inspect_and_write

    inspect_and_write(
        recipe,
        out,
        pattern=tensors,
        sample=sample,
        lora_merge_cache=lora_merge_cache,
        allow_crimes=allow_crimes,
        trust_remote_code=trust_remote_code,
        console=progress_console(),
    )
