"""Options of ``mergekit-spectral methods``; `methods_run` does the work."""

from __future__ import annotations

import click

from mergekit_spectral.command_line.command import Command
from mergekit_spectral.command_line.option_types import MethodName


@click.command(cls=Command, short_help="List merge methods and their parameters.")
@click.argument("name", required=False, type=MethodName())
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def methods(name: str | None, as_json: bool) -> None:
    """List the merge methods that a recipe can name, and their parameters.

    With NAME, describe one method. Without it, list this package's methods with all their
    parameters, then mergekit's own. The output is what was asked for, so --quiet has no effect.

    \b
    Examples:
      mergekit-spectral methods
      mergekit-spectral methods drm
      mergekit-spectral methods ties --json
    """  # noqa: D301, click's mark is the character
    # Late, because it imports torch, which takes seconds.
    from mergekit_spectral.command_line.methods_run import print_all, print_one

    if name is None:
        print_all(as_json)
    else:
        print_one(name, as_json)
