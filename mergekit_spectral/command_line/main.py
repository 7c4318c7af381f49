"""The command ``mergekit-spectral``."""

from __future__ import annotations

import click

from mergekit_spectral import __version__
from mergekit_spectral.command_line.adapter import adapter
from mergekit_spectral.command_line.check import check
from mergekit_spectral.command_line.demo import demo
from mergekit_spectral.command_line.inspect import inspect
from mergekit_spectral.command_line.methods import methods
from mergekit_spectral.command_line.run import run
from mergekit_spectral.command_line.tune import tune


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mergekit-spectral")
def main() -> None:
    """Merge methods in spectral space for mergekit, and commands around merges.

    \b
    Example:
      mergekit-spectral methods drm
    """  # noqa: D301, click's mark is the character


for command in (adapter, check, demo, inspect, methods, run, tune):
    main.add_command(command)
