"""The names of merge methods, for shell completion.

Each press of the tab key starts Python anew. The methods themselves are in modules that import
PyTorch, which takes seconds, so their names are listed here. `tests/command_line` compares the list
with the methods.
"""

from __future__ import annotations

from importlib.metadata import entry_points

SPECTRAL = ("drm", "star", "iso", "tsvm", "actmat", "knots")
"""Methods of this package. There is also a `knots_M` for each M in `TASK_ARITHMETIC`."""
TASK_ARITHMETIC = (
    *("task_arithmetic", "ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties"),
    *("della", "della_linear"),
)
"""mergekit's generalized task arithmetic methods."""
OTHERS = (
    *("arcee_fusion", "karcher", "linear", "model_stock", "multislerp", "nearswap", "nuslerp"),
    *("passthrough", "ram", "ramplus_tl", "sce", "slerp"),
)
"""mergekit's other methods."""
ENTRY_POINTS = "mergekit_spectral.methods"
"""The group in which other packages name their methods."""


def method_names() -> list[str]:
    """Return the names of all methods that a recipe can name, in alphabetical order."""
    of_other_packages = [entry.name for entry in entry_points(group=ENTRY_POINTS)]
    knots = [f"knots_{name}" for name in TASK_ARITHMETIC]
    return sorted({*SPECTRAL, *knots, *TASK_ARITHMETIC, *OTHERS, *of_other_packages})
