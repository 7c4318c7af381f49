"""Tell mergekit about our methods when, and only when, it is imported.

mergekit has no plugin discovery. PyTorch does: at the end of ``import torch`` it calls every entry
point in the group ``torch.backends``, and ours is `install_hooks`. It runs in every process that
imports torch, so it imports nothing but wrapt, and it never raises: PyTorch would turn an error
here into a failed ``import torch``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType

import wrapt

Hook = Callable[[ModuleType], None]

_installed = False


def install_hooks() -> None:
    """Register our methods as soon as mergekit's registry is imported, or now if it already is.

    Calling it again does nothing. Raises nothing.
    """
    global _installed
    if _installed:
        return
    _installed = True
    wrapt.register_post_import_hook(_register, "mergekit.merge_methods.registry")
    wrapt.register_post_import_hook(_wrap_run_merge, "mergekit.merge")


def _or_warn(hook: Hook) -> Hook:
    """Keep an error in `hook` from becoming a failed import of mergekit."""

    @wraps(hook)
    def guarded(module: ModuleType) -> None:
        try:
            hook(module)
        except Exception as error:
            # Not `warnings`: those may be set to raise.
            import logging

            logging.getLogger(__name__).warning(
                "mergekit-spectral does not fit this version of mergekit, which goes on without "
                "it (%s: %s).",
                type(error).__name__,
                error,
            )

    return guarded


@_or_warn
def _register(registry: ModuleType) -> None:
    from mergekit_spectral.registration import register_methods

    register_methods(registry)


def _wrap_run_merge(merge: ModuleType) -> None:
    if getattr(merge.__spec__, "_initializing", False):
        merge.__class__ = _Unfinished
    else:
        _wrap_run_merge_now(merge)


@_or_warn
def _wrap_run_merge_now(merge: ModuleType) -> None:
    from mergekit_spectral.run_merge import wrap_run_merge

    wrap_run_merge(merge)


class _Unfinished(ModuleType):
    """``mergekit.merge``, where importing that was what imported torch.

    It has no `run_merge` yet, and with transformers half imported too ours could not be imported;
    so it is wrapped when somebody first asks for it.
    """

    @property
    def run_merge(self) -> object:
        if "run_merge" not in vars(self):
            raise AttributeError("run_merge")
        self.__class__ = ModuleType  # type: ignore[assignment]
        _wrap_run_merge_now(self)
        return self.run_merge
