"""Register our methods with mergekit when, and only when, mergekit is imported.

mergekit has no plugin discovery. PyTorch does: at the end of ``import torch`` it calls every entry
point in the group ``torch.backends``, and ours is `install_hooks`. It runs in every process that
imports torch, so it imports the standard library only, and it never raises: PyTorch would turn an
error here into a failed ``import torch``.
"""

from __future__ import annotations

from mergekit_spectral.host.changes import adapt
from mergekit_spectral.host.import_hooks import when_imported
from mergekit_spectral.host.names import NAMES, refuse

_installed = False


def install_hooks() -> None:
    """Have mergekit's modules checked and changed when they are imported, or now if they are.

    Calling it again does nothing. Raises nothing.
    """
    global _installed
    if _installed:
        return
    _installed = True
    try:
        for module in NAMES:
            when_imported(module, adapt)
    except Exception as error:
        refuse(f"its import cannot be followed: {type(error).__name__}: {error}")
