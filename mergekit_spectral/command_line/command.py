"""Define what all commands have: ``--quiet``, ``--verbose``, and errors in a sentence."""

from __future__ import annotations

import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

_QUIET = "mergekit_spectral.quiet"
_VERBOSE = "mergekit_spectral.verbose"

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command with ``--quiet`` and ``--verbose``.

    An error in the input is printed as one sentence, with ``--verbose`` after a traceback.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += [
            click.Option(
                ["-q", "--quiet"],
                is_flag=True,
                expose_value=False,
                callback=_remember_quiet,
                help="Print nothing but errors.",
            ),
            click.Option(
                ["-v", "--verbose"],
                is_flag=True,
                expose_value=False,
                callback=_remember_verbose,
                help="Print a traceback with an error.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _silence() if ctx.meta.get(_QUIET) else nullcontext():
                return super().invoke(ctx)
        except click.ClickException:
            if ctx.meta.get(_VERBOSE):
                traceback.print_exc()
            raise


_SILENT = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
"""Variables that huggingface_hub and other processes read when they start."""


@contextmanager
def _silence() -> Iterator[None]:
    """Print no warnings, ours or of a library, within this context."""
    variables = {name: os.environ.get(name) for name in _SILENT}
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.WARNING))
        os.environ.update(_SILENT)
        try:
            yield
        finally:
            logging.disable(disabled)
            for name, value in variables.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


def mergekit_options(command: F) -> F:
    """Add the options of ``mergekit-yaml`` that decide which models can be read."""
    for option in (
        click.option(
            "--trust-remote-code", is_flag=True, help="Run custom code from the models' files."
        ),
        click.option("--allow-crimes", is_flag=True, help="The same as for mergekit-yaml."),
        click.option("--lora-merge-cache", help="The same as for mergekit-yaml."),
    ):
        command = option(command)
    return command


def _remember_quiet(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    ctx.meta[_QUIET] = value


def _remember_verbose(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    ctx.meta[_VERBOSE] = value


def is_quiet() -> bool:
    """Return whether the command was called with ``--quiet``."""
    return bool(click.get_current_context().meta.get(_QUIET))


def is_verbose() -> bool:
    """Return whether the command was called with ``--verbose``."""
    return bool(click.get_current_context().meta.get(_VERBOSE))


def progress_console() -> Console:
    """Return the console for progress and remarks, silent under ``--quiet``."""
    from rich.console import Console

    return Console(quiet=is_quiet())
