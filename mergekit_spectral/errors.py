"""`MergeError`: an error that the user can fix, shown as a sentence without traceback."""

from __future__ import annotations

import click


class MergeError(click.ClickException, ValueError):
    """One sentence that names what is wrong and what would be right.

    mergekit's commands are click commands, so they print it as ``Error: …`` and exit with status 1,
    without a traceback. To code that calls mergekit as a library it is a `ValueError`.
    """


def needs_extra(what: str, extra: str) -> str:
    """Return the sentence that says how to install an extra of this package, without a full stop.

    Args:
        what: what needs it, as the beginning of the sentence.
        extra: its name.
    """
    # The package is not on PyPI yet.
    return (
        f'{what} needs the extra `{extra}`: run `pip install ".[{extra}]"` in a clone of '
        "mergekit-spectral"
    )


def first_line(error: Exception) -> str:
    """Return what an error of another library says, in a form that fits into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
