"""Options of ``mergekit-spectral check``; `check_run` does the work."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from mergekit_spectral.command_line.command import Command, mergekit_options


@click.command(
    cls=Command, short_help="Report what is wrong with a recipe, and what its merge takes."
)
@click.argument("recipe", metavar="RECIPE|ADAPTER", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="Folder of the merged model, to check it and the free space on its disk.  [default: .]",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Device of the merge, to estimate its memory. The time is always estimated for this CPU.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Check the merge as `run` would make it, and also estimate what it takes with so many "
    "workers: on this machine, or on a cluster of machines like it.",
)
@click.option(
    "--hub",
    is_flag=True,
    help="Read the headers of models that are not on this machine on the Hugging Face Hub.",
)
@mergekit_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    recipe: Path,
    out: Path,
    device: str,
    workers: int | None,
    hub: bool,
    lora_merge_cache: str | None,
    allow_crimes: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Report what is wrong with RECIPE before it is run, or which servers load ADAPTER.

    RECIPE may be for any of mergekit's methods. The check reads configurations and the headers of
    files, and samples of weights to find equal ones. It asks the Hub only with --hub, and downloads
    no weights then either. The exit status is 0 if the merge would run, with warnings or without,
    and 1 if it would fail.

    ADAPTER is the folder of a LoRA adapter, which is checked for vLLM and llama.cpp. The exit
    status is 1 if one of them would refuse it, or apply it otherwise than peft does. Of the options
    below, only --json is for adapters.

    \b
    Examples:
      mergekit-spectral check recipe.yml
      mergekit-spectral check recipe.yml --out /models/merged --json
      mergekit-spectral check recipe.yml --workers 8
      mergekit-spectral check recipe.yml --hub
      mergekit-spectral check merged-adapter/
    """  # noqa: D301, click's mark is the character
    if recipe.is_dir():
        _require_no_options(ctx)
        from mergekit_spectral.command_line.check_adapter_run import check_adapter_and_print

        ctx.exit(0 if check_adapter_and_print(recipe, as_json) else 1)
    if not hub:
        os.environ["HF_HUB_OFFLINE"] = "1"  # set before huggingface_hub reads it, on import
    from mergekit_spectral.command_line.check_run import check_and_print

    failed = check_and_print(
        recipe,
        out,
        lora_merge_cache=lora_merge_cache,
        allow_crimes=allow_crimes,
        trust_remote_code=trust_remote_code,
        device=device,
        workers=workers,
        hub=hub,
        as_json=as_json,
    )
    ctx.exit(1 if failed else 0)


def _require_no_options(ctx: click.Context) -> None:
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") == ParameterSource.COMMANDLINE
        if given and option.expose_value and option.name not in ("recipe", "as_json"):
            raise click.UsageError(f"{option.opts[0]} is for recipes, and not for adapters.")
