"""DRM, KnOTS and STAR as mergekit merge methods.

Importing this package registers the methods with mergekit, whichever of the two is imported first.
After ``pip install`` the import is not needed, because PyTorch loads the same hook (see
`mergekit_spectral.autoload`).

In Python, the package offers what its commands do:

- `merge`: merge a recipe into a model.
- `merge_adapters`: merge adapters of a loaded peft model.
- `tune`: find the λ, density and method that are best on examples.
- `inspect`: decide from the inputs which to merge, and how.
- `check`: report what is wrong with a recipe, and what it takes.
- `MergeError`: what all of them raise, with a sentence.

The subpackages are layers, each of which imports only itself and those before it: `spectral` (the
mathematics), `adapters` (LoRA), `methods` (the merge methods), `recipe` (a recipe as text and as
sections), `host` (everything that uses mergekit's internals), `peft_models` (adapters of a loaded
model), `checking`, `reporting` (what pages share), `inspecting`, `tuning`, `scaling` (merges on
many workers), `demo` and `command_line`. Outside them are this file, `autoload`
(the hook), `errors` and `whole_files`. `tests/host/test_rooms.py` checks the order.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mergekit_spectral.autoload import install_hooks

if TYPE_CHECKING:
    from mergekit_spectral.checking.checks import check
    from mergekit_spectral.errors import MergeError
    from mergekit_spectral.inspecting.report import inspect
    from mergekit_spectral.peft_models.merge_adapters import merge_adapters
    from mergekit_spectral.scaling.driver import merge
    from mergekit_spectral.tuning.tune import tune

__all__ = ["MergeError", "check", "inspect", "merge", "merge_adapters", "tune"]
__version__ = "0.1.0"

_DEFINED_IN = {
    "MergeError": "errors",
    "check": "checking.checks",
    "inspect": "inspecting.report",
    "merge": "scaling.driver",
    "merge_adapters": "peft_models.merge_adapters",
    "tune": "tuning.tune",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used, because PyTorch imports this package."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


install_hooks()
