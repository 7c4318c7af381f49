"""Silence what transformers prints of its own accord."""

from __future__ import annotations

import warnings

import transformers


def silence_transformers() -> None:
    """Keep transformers' bars and warnings out of a command's own lines of progress."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
