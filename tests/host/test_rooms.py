"""What each room of the package may import, read from the source of every file."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import mergekit_spectral
from mergekit_spectral import adapters, host, peft_models, reporting, scaling

PACKAGE = Path(mergekit_spectral.__file__).parent
FILES = {
    ".".join(("mergekit_spectral", *path.relative_to(PACKAGE).with_suffix("").parts)): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

ORDER = (
    "errors",
    "whole_files",
    "spectral",
    "adapters",
    "methods",
    "recipe",
    "host",
    "autoload",
    "__init__",
    "peft_models",
    "checking",
    "reporting",
    "inspecting",
    "tuning",
    "scaling",
    "demo",
    "command_line",
    "__main__",
)
"""Rooms, and files beside them: each imports itself and those before it."""

METHODS = ("mergekit.merge_methods", "mergekit.sparsify")
RECIPES = ("mergekit.common", "mergekit.config", "mergekit.options")
ABOVE_HOST = (
    *RECIPES,
    "mergekit.merge_methods",
    "mergekit.tokenizer.config",
)
MERGEKIT = {
    "adapters": ("mergekit.io.lazy_tensor_loader",),
    "methods": METHODS,
    "recipe": RECIPES,
    "host": ("mergekit",),
    "checking": ABOVE_HOST,
    "inspecting": ABOVE_HOST,
    "tuning": ABOVE_HOST,
    "scaling": ABOVE_HOST,
    "command_line": ABOVE_HOST,
}
"""Which of mergekit's modules, with all below them, a room may import. No other room may any."""

ADAPTERS_TENSORS = ("mergekit_spectral.adapters.adapted", "mergekit_spectral.adapters.deferred")
"""Files of adapters/ that need neither peft nor transformers to register the methods."""

LIGHT = ("__init__", "names", "import_hooks", "registration", "changes")
"""Files of host/ that every ``import torch`` loads."""


def room_of(module: str) -> str:
    """Return the room of one of our modules, or its own name if it is in none."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path, at_import_only: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the modules that a file imports, each with the name it takes, empty for the module.

    Args:
        path: of the file.
        at_import_only: leave out what is imported later, in functions or for type checkers.
    """
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)
        later = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        )
        if not (later and at_import_only):
            nodes.extend(ast.iter_child_nodes(node))


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def ours(path: Path, at_import_only: bool = False) -> Iterator[tuple[str, str]]:
    """Yield what `imported` does, for our own modules, with `name` empty if that is a module."""
    for module, name in imported(path, at_import_only):
        if is_in(module, ("mergekit_spectral",)):
            whole = f"{module}.{name}"
            is_module = whole in FILES or f"{whole}.__init__" in FILES
            yield (whole, "") if is_module else (module, name)


def test_the_order_has_all_rooms():
    assert {room_of(module) for module in FILES} == set(ORDER)


def test_imports_run_downward():
    for module, path in FILES.items():
        own = ORDER.index(room_of(module))
        # The package itself offers functions of the rooms above it, imported when they are used.
        for other, _ in ours(path, at_import_only=module == "mergekit_spectral.__init__"):
            there = ORDER.index(room_of(other))
            assert there <= own, f"{module} imports {other}, which is above it"


def test_private_names_stay_in_their_file():
    for module, path in FILES.items():
        for other, name in ours(path):
            private = [part for part in (*other.split("."), name) if re.match(r"_[^_]", part)]
            assert not private, f"{module} imports {private} of {other}"


def test_mergekits_insides_are_touched_in_host_only():
    for module, path in FILES.items():
        allowed = MERGEKIT.get(room_of(module), ())
        for other, name in imported(path):
            if is_in(other, ("mergekit",)):
                assert is_in(other, allowed), f"{module} imports {name} of {other}"


def test_methods_import_only_the_tensors_of_adapters():
    for module, path in FILES.items():
        if room_of(module) == "methods":
            for other, name in ours(path):
                allowed = room_of(other) != "adapters" or other in ADAPTERS_TENSORS
                assert allowed, f"{module} imports {name} of {other}"


def test_what_every_import_of_torch_loads_imports_the_standard_library_only():
    light = [f"mergekit_spectral.host.{name}" for name in LIGHT]
    for module in (*light, "mergekit_spectral.autoload", "mergekit_spectral.__init__"):
        for other, name in imported(FILES[module], at_import_only=True):
            top = other.split(".")[0]
            within = [other, f"{other}.{name}", f"{other}.__init__"]
            known = {*light, "mergekit_spectral.autoload"}.intersection(within)
            assert top in sys.stdlib_module_names or known, f"{module} imports {other}"


@pytest.mark.parametrize("room", [adapters, host, peft_models, reporting, scaling])
def test_rooms_say_what_each_file_holds_in_the_order_of_their_imports(room: ModuleType):
    own = room.__name__.split(".")[1]
    listed = re.findall(r"^- `(\w+)`:", room.__doc__ or "", re.MULTILINE)
    files = {module.split(".")[-1] for module in FILES if room_of(module) == own} - {"__init__"}
    assert sorted(listed) == sorted(files)
    for number, name in enumerate(listed):
        for other, _ in ours(FILES[f"{room.__name__}.{name}"], at_import_only=True):
            if room_of(other) == own:
                there = other.split(".")[2]
                assert there in listed[:number], f"{name} imports {there}, listed below it"


def test_nothing_reaches_past_the_public_names_of_spectral():
    for module, path in FILES.items():
        if room_of(module) != "spectral":
            for other, name in ours(path):
                past = other.startswith("mergekit_spectral.spectral.")
                assert not past, f"{module} imports {name} of {other}"
