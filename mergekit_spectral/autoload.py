"""Tell mergekit about our methods when, and only when, it is imported.

mergekit has no plugin discovery. PyTorch does: at the end of ``import torch`` it calls every entry
point in the group ``torch.backends``. Ours is `install_hooks`. It runs in every process that
imports torch, so it imports nothing but wrapt, and it never raises: PyTorch would turn an error
here into a failed ``import torch``.
"""

from __future__ import annotations

from types import ModuleType

import wrapt

_installed = False


def install_hooks() -> None:
    """Register our methods as soon as mergekit's registry is imported, or now if it already is.

    Calling it again does nothing. Raises nothing.
    """
    global _installed
    if _installed:
        return
    _installed = True
    wrapt.register_post_import_hook(_register_methods, "mergekit.merge_methods.registry")


def _register_methods(registry: ModuleType) -> None:
    try:
        from mergekit_spectral.registration import register_methods

        register_methods(registry)
    except Exception as error:
        import warnings

        warnings.warn(
            "mergekit-spectral does not fit this version of mergekit and leaves it without the "
            f"methods drm, knots_* and star ({type(error).__name__}: {error}).",
            RuntimeWarning,
            stacklevel=2,
        )
