"""LoRA adapters: read in factors, carried in factors through mergekit's graph, written.

Merge methods need `AdaptedTensor` only. What reads and writes adapters imports peft and
transformers, and is loaded when it is first asked for: registering the methods must not need them,
as mergekit's own methods do not. `mergekit_spectral.adapters.public` lists the names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mergekit_spectral.adapters.adapted import AdaptedTensor as AdaptedTensor

if TYPE_CHECKING:
    from mergekit_spectral.adapters.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        public = import_module("mergekit_spectral.adapters.public")
        if hasattr(public, name):
            return getattr(public, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
