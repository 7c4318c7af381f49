"""Options of ``mergekit-spectral adapter``; `adapter_run` does the work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from mergekit_spectral.command_line.command import Command, progress_console


class Share(click.FloatRange):
    """A number above 0 and at most 1. Unlike click's own range, it refuses NaN."""

    def __init__(self) -> None:
        super().__init__(0, 1, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        share = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value} is not in the range 0<x<=1.", param, ctx)
        return share


@click.command(cls=Command, short_help="Merge LoRA adapters into one adapter.")
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="The largest rank of a weight. A merged update of larger rank is replaced by its best "
    "approximation of this rank; for iso and tsvm, by a merge of the inputs on bases of this rank "
    "that they share. By default, each weight keeps the rank of its merged update, which is at "
    "most the sum of the inputs' ranks. A smaller rank may cost one task much of its accuracy.",
)
@click.option(
    "--energy",
    type=Share(),
    default=1.0,
    show_default=True,
    help="Give each weight the smallest rank that keeps this share of the squared norm of its "
    "merged update.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="The dtype in which the factors are stored.",
)
@click.option(
    "--rank-pattern",
    is_flag=True,
    help="Store each weight with its own rank, listed in `rank_pattern`. The file is smaller, but "
    "llama.cpp and servers built on it scale such adapters wrongly. By default, all weights get "
    "the largest rank, filled up with zeros.",
)
@click.option("--overwrite", is_flag=True, help="Replace an adapter that is already in OUT.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Run custom code from the base model's files."
)
@click.option(
    "--random-seed",
    type=click.IntRange(0, 2**32 - 1),
    help="Seed for methods that use random numbers.",
)
def adapter(
    recipe: Path,
    out: Path,
    rank: int | None,
    energy: float,
    dtype: str,
    rank_pattern: bool,
    overwrite: bool,
    trust_remote_code: bool,
    random_seed: int | None,
) -> None:
    """Merge the LoRA inputs of RECIPE into one LoRA adapter, in the folder OUT.

    RECIPE is a mergekit recipe for a method of this package, or of a package that depends on it.
    Every input must be written base+adapter. The command reads the base model's configuration, but
    not its weights, and needs no GPU.

    \b
    Example:
      mergekit-spectral adapter recipes/llama/four-adapters.yml merged-adapter/
    """  # noqa: D301, click's mark is the character
    import torch
    from mergekit.options import MergeOptions

    from mergekit_spectral.command_line.adapter_run import merge_into_adapter

    if random_seed is not None:
        torch.manual_seed(random_seed)
    merge_into_adapter(
        recipe,
        out,
        rank=rank,
        energy=energy,
        dtype=getattr(torch, dtype),
        rank_pattern=rank_pattern,
        overwrite=overwrite,
        options=MergeOptions(trust_remote_code=trust_remote_code),
        console=progress_console(),
    )
