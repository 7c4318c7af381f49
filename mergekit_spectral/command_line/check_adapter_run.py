"""Run ``mergekit-spectral check`` on an adapter: print which servers load it, and how."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

import click

from mergekit_spectral.checking.servers import Serving, check_servers
from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.errors import MergeError


def check_adapter_and_print(folder: Path, as_json: bool) -> bool:
    """Print for each server whether it takes an adapter, and return whether all do.

    Args:
        folder: the adapter's folder.
        as_json: whether to print JSON.

    Raises:
        MergeError: there is no adapter in the folder, or it is damaged.
    """
    silence_transformers()
    if (folder / "config.json").is_file():
        raise MergeError(
            f"{folder} contains a whole model; give a recipe, or the folder of an adapter."
        )
    servings = check_servers(folder)
    if as_json:
        found = [{**asdict(each), "takes": each.takes} for each in servings]
        click.echo(json.dumps({"servers": found}, indent=1))
    else:
        for each in servings:
            _print(folder, each)
    return all(each.takes for each in servings)


def _print(folder: Path, serving: Serving) -> None:
    if is_quiet() and serving.takes:
        return
    if serving.takes:
        note = f", but {serving.note}" if serving.note else ""
        click.echo(f"{folder}: {serving.server} takes it{note}:")
    else:
        click.echo(
            f"{folder}: {serving.server} does not take it: {'; '.join(serving.reasons)}. "
            "Serve this instead:"
        )
    click.echo(textwrap.indent(serving.commands, "    "))
