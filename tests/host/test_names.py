"""The names of mergekit that we rely on, and mergekits that lack one of them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import mergekit_spectral
from mergekit_spectral.host.names import NAMES

PACKAGE = Path(mergekit_spectral.__file__).parent

REPLACED = {
    "mergekit.architecture.auto": {"get_model_tensor_names"},
    # The base and the method are read from the definition that a genome has.
    "mergekit.evo.genome": {"METHOD_PARAM_MAPS", "ModelGenome", "ModelGenomeDefinition"},
    "mergekit.merge": {"run_merge", "Executor", "generate_card"},
    # The two functions that ask the table, besides the table itself.
    "mergekit.merge_methods.registry": {"_METHODS", "get", "registered_methods"},
}
"""What `mergekit_spectral.host.changes` and `.parts` change, without importing it."""


def imported_from(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield module and name of all that a file imports from mergekit or asks its modules for.

    The name is empty for a module that is imported itself.
    """
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mergekit":
            for alias in node.names:
                if is_module(name := f"{node.module}.{alias.name}"):
                    modules[alias.asname or alias.name] = name
                    yield name, ""
                else:
                    yield node.module, alias.name
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "mergekit" for alias in node.names)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            yield modules[node.value.id], node.attr


def is_module(name: str) -> bool:
    parent, _, _ = name.rpartition(".")
    if hasattr(importlib.import_module(parent), "__path__"):
        return importlib.util.find_spec(name) is not None
    return False


def test_the_list_is_what_the_package_imports():
    used = defaultdict(set, {module: set(names) for module, names in REPLACED.items()})
    for file in PACKAGE.rglob("*.py"):
        for module, name in imported_from(ast.parse(file.read_text())):
            used[module] |= {name} - {""}
    listed = {module: {n.partition(".")[0] for n in names} for module, names in NAMES.items()}
    assert listed == used


def test_attributes_in_the_list_are_used():
    nodes = [
        node for file in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))
    ]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.value for node in nodes if isinstance(node, ast.Constant)}
    used |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}  # overridden
    for names in NAMES.values():
        for name in names:
            assert "." not in name or name.partition(".")[2] in used, name


def source_of(module: str, folder: Path) -> Path:
    """Make a package of a module, in packages, and return its file."""
    for part in module.split("."):
        folder = folder / part
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    return folder / "__init__.py"


def code_without(module: str, missing: str) -> str:
    """Return the code of a module with all names that we rely on but one."""
    attributes: dict[str, list[str]] = {}
    for name in NAMES[module]:
        top, _, attribute = name.partition(".")
        if missing not in (top, name):
            attributes.setdefault(top, []).extend([attribute] if attribute else [])
    code = []
    for name, own in attributes.items():
        if name == "run_merge":
            code.append(
                "def run_merge(merge_config, out_path, options): return 'merged by mergekit'"
            )
        elif name == "get":
            code.append("def get(name): ...")
        elif name == "_METHODS":
            code.append("_METHODS = {'ties': 'ties of mergekit'}")
        elif name == "METHOD_PARAM_MAPS":
            code.append("METHOD_PARAM_MAPS = {'ties': ['weight']}")
        else:
            code.append(f"class {name}:\n    {'; '.join(f'{a} = None' for a in own) or 'pass'}")
    return "\n".join(code)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A mergekit that has the modules and the names that we rely on, and nothing else."""
    for module in NAMES:
        source_of(module, tmp_path).write_text(code_without(module, ""))
    return tmp_path


CASES = """
import importlib, json, logging, os, sys
from types import SimpleNamespace
sys.dont_write_bytecode = True
folder, modules, cases = json.load(sys.stdin)
sys.path.insert(0, folder)
import mergekit_spectral

class Lines(logging.Handler):
    def emit(self, record):
        found.append(record.getMessage())

logging.getLogger().addHandler(Lines())

def import_all(look_up):
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            pass
    registry = sys.modules["mergekit.merge_methods.registry"]
    table = getattr(registry, "_METHODS", {"ties": "ties of mergekit"})
    merge = getattr(sys.modules.get("mergekit.merge"), "run_merge", lambda *_: "merged by mergekit")
    if look_up:  # whether all modules are there is asked at the first look-up
        table.values()
    works = bool(found) and list(table.values()) == ["ties of mergekit"]
    works = works and merge(SimpleNamespace(merge_method="drm"), "", None) == "merged by mergekit"
    return {"warnings": found, "works": works, "table": type(table).__name__,
            "file": registry.__file__}

for path, code in cases:
    before = open(path).read()
    module, hidden = os.path.dirname(path), os.path.join(folder, "hidden")
    if code is None:
        os.rename(module, hidden)
    else:
        open(path, "w").write(code)
    importlib.invalidate_caches()
    found = []
    read, write = os.pipe()
    if os.fork() == 0:  # each case needs an interpreter that has not imported mergekit
        try:
            os.write(write, json.dumps(import_all(code is None)).encode())
        except BaseException as error:
            os.write(write, json.dumps({"error": repr(error)}).encode())
        os._exit(0)
    os.wait()
    os.close(write)
    print(os.read(read, 65536).decode())
    os.close(read)
    if code is None:
        os.rename(hidden, module)
    open(path, "w").write(before)
"""


def run_cases(stand_in: Path, cases: list[tuple[str, str | None]]) -> list[dict[str, object]]:
    """Import all of a stand-in, once for each module that is written anew or taken away.

    Args:
        stand_in: the folder with the package.
        cases: modules with their new code; None to take the module away.
    """
    files = [(str(source_of(module, stand_in)), code) for module, code in cases]
    done = subprocess.run(
        [sys.executable, "-c", CASES],
        input=json.dumps([str(stand_in), list(NAMES), files]),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_mergekits_with_all_names_or_without_one(stand_in: Path):
    (first, *_) = NAMES
    missing = [(module, name) for module, names in NAMES.items() for name in names]
    codes: list[tuple[str, str | None]] = [(first, code_without(first, ""))]
    codes += [(module, code_without(module, name)) for module, name in missing]
    whole, *lacking = run_cases(stand_in, codes)
    assert whole["warnings"] == []
    assert whole["table"] == "MethodTable"
    assert str(whole["file"]).startswith(str(stand_in))
    assert len(lacking) == len(missing)
    for (module, name), found in zip(missing, lacking, strict=True):
        assert found["works"], (module, name, found)
        (warning,) = found["warnings"]
        start = "mergekit-spectral does not fit this version of mergekit, which continues without"
        assert warning == f"{start} it: {module} has no {name}."


def test_mergekits_without_one_module(stand_in: Path):
    # Without the table itself, nobody can ask for a method.
    needed = "mergekit.merge_methods.registry"
    missing = [module for module in NAMES if not needed.startswith(module)]
    for module, found in zip(
        missing, run_cases(stand_in, [(module, None) for module in missing]), strict=True
    ):
        assert found["works"], (module, found)
        (warning,) = found["warnings"]
        assert warning.endswith(f"continues without it: there is no {module}.")


def test_a_run_merge_of_another_signature_is_left_alone(stand_in: Path):
    code = "Executor = _model_out_config = generate_card = None\n"
    code += "def run_merge(recipe, out_path, _): return 'merged by mergekit'"
    (found,) = run_cases(stand_in, [("mergekit.merge", code)])
    assert found["works"]
    (warning,) = found["warnings"]
    assert warning.endswith("mergekit.merge.run_merge has no parameter merge_config, options.")


def test_a_mergekit_that_we_do_not_know_imports_where_warnings_are_errors(stand_in: Path):
    source_of("mergekit.merge_methods.registry", stand_in).write_text("methods = {}\n")
    code = f"import sys; sys.path.insert(0, {str(stand_in)!r}); import torch\n"
    code += "import mergekit.merge_methods.registry as r; print(r.methods)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{}"
    assert done.stderr.count("mergekit-spectral does not fit this version of mergekit") == 1
