"""Silence what transformers and lm-eval print of their own accord."""

from __future__ import annotations

import logging
import os
import warnings

import transformers


def silence_transformers() -> None:
    """Keep transformers' bars and warnings out of a command's own lines of progress."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def silence_lm_eval() -> None:
    """Keep bars and warnings of lm-eval, and of the data sets it loads, out of the lines, too."""
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"  # is read on import
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
