"""DRM, KnOTS and STAR as mergekit merge methods.

Importing this package registers the methods with mergekit, whichever of the two is imported first.
After ``pip install`` the import is not needed, because PyTorch loads the same hook (see
`mergekit_spectral.autoload`).

The subpackages are layers, each of which imports only itself and those before it: `spectral` (the
mathematics), `adapters` (LoRA), `methods` (the merge methods), `recipe` (a recipe as text and as
sections), `host` (everything that uses mergekit's internals), `checking`, `reporting` (what pages
share), `inspecting`, `tuning`, `demo` and `command_line`. Outside them are this file, `autoload`
(the hook), `errors` and `whole_files`. `tests/host/test_rooms.py` checks the order.
"""

from typing import TYPE_CHECKING, Any

from mergekit_spectral.autoload import install_hooks

if TYPE_CHECKING:
    from mergekit_spectral.tuning.tune import tune

__all__ = ["tune"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `tune` when it is used: PyTorch imports this package, and `tune` imports PyTorch."""
    if name == "tune":
        from mergekit_spectral.tuning.tune import tune

        return tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


install_hooks()
