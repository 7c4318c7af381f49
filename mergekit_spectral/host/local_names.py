"""Names of local folders, which mergekit's model card looks up on the hub."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mergekit import card

_local = ContextVar("_local", default=False)


@contextmanager
def local_folders_are_no_hub_ids() -> Iterator[None]:
    """Keep mergekit's card writer from asking the hub for names of local folders.

    For a folder named ``name`` or ``org/name`` mergekit asks the hub whether it has a model of that
    name, after the weights are written. Without a network that is an error, and the merged model
    is left without a tokenizer and a card. Only code within this context is affected.
    """
    if not hasattr(card.is_hf, "__wrapped__"):
        setattr(card, "is_hf", _but_for_folders(card.is_hf))  # noqa: B010, typed as it is
    token = _local.set(True)
    try:
        yield
    finally:
        _local.reset(token)


def _but_for_folders(is_hf: Callable[[str], bool]) -> Callable[[str], bool]:
    @functools.wraps(is_hf)
    def wrapped(path: str) -> bool:
        return not (_local.get() and os.path.exists(path)) and is_hf(path)

    return wrapped
