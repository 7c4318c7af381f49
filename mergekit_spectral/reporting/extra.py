"""The extra that pages need."""

from __future__ import annotations

from importlib.util import find_spec

MODULES = ("matplotlib", "jinja2")


def is_installed() -> bool:
    """Whether the packages of the extra `report` are installed."""
    return all(find_spec(module) is not None for module in MODULES)
