"""Installed, editable, uninstalled; every import order; and mergekits that we do not know."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path

import pytest
from mergekit.merge_methods import registered_methods

from mergekit_spectral.host.names import NAMES
from mergekit_spectral.host.registration import MethodTable
from mergekit_spectral.methods import SpectralMethod

ROOT = Path(__file__).parents[2]
OURS = {m.spec.name for m in registered_methods() if isinstance(m, SpectralMethod)}

KNOWN = """
from mergekit.merge_methods import registered_methods
names = {method.spec.name for method in registered_methods()}
print("known" if OURS <= names else "unknown" if not OURS & names else "some")
""".replace("OURS", repr(OURS))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has all packages of this one, except ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "mergekit_spectral" not in package.name:
            (site / package.name).symlink_to(package)
    return folder


@pytest.fixture(params=["wheel", "editable"])
def installed(environment: Path, request: pytest.FixtureRequest) -> Path:
    editable = ["--editable"] if request.param == "editable" else []
    pip(environment, "install", "--no-deps", "--no-build-isolation", *editable, str(ROOT))
    return environment


def pip(environment: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    subprocess.run(
        [*command, "--quiet", "--disable-pip-version-check", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def run(environment: Path, code: str, **variables: str) -> str:
    return subprocess.run(
        [environment / "bin" / "python", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=environment,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables,
    ).stdout.strip()


def test_installed_and_uninstalled(installed: Path):
    # mergekit-yaml, mergekit-multi and mergekit-pytorch are the `main` of these modules.
    scripts = "from mergekit.scripts import run_yaml, multimerge, merge_raw_pytorch"
    assert run(installed, f"{scripts}\n{KNOWN}") == "known"
    pip(installed, "uninstall", "--yes", "mergekit-spectral")
    assert run(installed, KNOWN) == "unknown"
    assert not list(installed.glob("**/*mergekit?spectral*"))


@pytest.mark.parametrize(
    "first",
    [
        "torch",
        "mergekit.merge",
        "mergekit_spectral",
        "mergekit_spectral.methods.drm",
        "mergekit_spectral.adapters",
        "mergekit_spectral.host.adapter_merge",
        "mergekit_spectral.host.registration, mergekit_spectral.host.run_merge",
    ],
)
def test_import_orders(first: str):
    code = f"import {first}\n{KNOWN}from mergekit.merge import run_merge\n"
    code += "print(hasattr(run_merge, '__wrapped__'))"
    assert run(Path(sys.prefix), code).split("\n") == ["known", "True"]


def test_without_autoload_importing_the_package_registers():
    off = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    here = Path(sys.prefix)
    assert run(here, f"import mergekit.merge\n{KNOWN}", **off) == "unknown"
    assert run(here, f"import mergekit_spectral\n{KNOWN}", **off) == "known"
    assert run(here, f"import mergekit.merge, mergekit_spectral\n{KNOWN}", **off) == "known"


def test_import_torch_loads_next_to_nothing():
    code = "import sys, torch; print(*sorted(m for m in sys.modules if m.startswith('mergekit')))"
    light = ["", ".autoload", ".host", ".host.changes", ".host.import_hooks", ".host.names"]
    light.append(".host.registration")
    assert run(Path(sys.prefix), code).split() == [f"mergekit_spectral{name}" for name in light]


def test_a_look_up_imports_neither_transformers_nor_peft():
    code = KNOWN + "import sys; print({'transformers', 'peft'} & sys.modules.keys())"
    assert run(Path(sys.prefix), code).split("\n") == ["known", "set()"]


@pytest.mark.parametrize("options", ["-OO", "-Werror"])
def test_where_transformers_cannot_be_imported(options: str):
    """mergekit.merge_methods can: transformers needs docstrings and warns."""
    done = subprocess.run(
        [sys.executable, options, "-c", KNOWN], capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("known", "")


def test_a_broken_wrapt_harms_nobody(tmp_path: Path):
    (tmp_path / "wrapt.py").write_text("raise ImportError('broken')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch\n{KNOWN}"
    assert run(Path(sys.prefix), code) == "known"


def test_reloaded():
    code = f"""
import importlib, inspect, mergekit.architecture.auto, mergekit.merge, mergekit.merge_methods
for name in ["mergekit.merge_methods.registry", "mergekit.merge", "mergekit.architecture.auto"]:
    module = importlib.reload(importlib.import_module(name))
    assert inspect.getsource(module)
    merged = [mergekit.merge.run_merge, mergekit.architecture.auto.get_model_tensor_names]
    print([inspect.unwrap(f) is f.__wrapped__ for f in merged], module.__spec__.loader.__module__)
    {KNOWN.strip().replace(chr(10), chr(10) + "    ")}
"""
    lines = run(Path(sys.prefix), code).split("\n")
    assert lines == ["[True, True] _frozen_importlib_external", "known"] * 3


RUN_MERGE_ELSEWHERE = """
import copy, multiprocessing, pickle, sys
from concurrent.futures import ProcessPoolExecutor

if __name__ == "__main__":
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge
    assert pickle.loads(pickle.dumps(run_merge)) is run_merge is copy.deepcopy(run_merge)
    nothing = MergeConfiguration.model_construct(merge_method="ties")
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        print(pool.submit(run_merge, nothing, "out", MergeOptions()).exception())
"""


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_run_merge_in_another_process(start: str, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(RUN_MERGE_ELSEWHERE)
    done = subprocess.run(
        [sys.executable, script, start], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "No output requested"


THREADS = """
import faulthandler, importlib, sys, threading, time, torch
slow, *modules = sys.argv[1:]
faulthandler.dump_traceback_later(60, exit=True)

class SlowFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == slow:
            time.sleep(1)

sys.meta_path.insert(0, SlowFinder)
found = []

def import_and_look_up(module):
    importlib.import_module(module)
    registry = importlib.import_module("mergekit.merge_methods.registry")
    found.append(registry.get("drm").spec.name)

threads = [threading.Thread(target=import_and_look_up, args=[module]) for module in modules]
for thread in threads:
    thread.start()
    time.sleep(0.2)
for thread in threads:
    thread.join()
from mergekit.merge import run_merge
print(*found, hasattr(run_merge, "__wrapped__"))
"""
M = "mergekit.merge_methods"


@pytest.mark.parametrize(
    ("slow", "modules"),
    [
        (f"{M}.registry", [M, f"{M}.registry"]),
        (f"{M}.base", [f"{M}.registry", "mergekit.merge"]),
        (f"{M}.registry", ["mergekit.merge", M, f"{M}.registry"]),
        ("mergekit.plan", [f"{M}.registry", "mergekit.merge", M]),
    ],
)
def test_threads_import_mergekit_at_once(slow: str, modules: list[str]):
    """Each thread starts while the one before it waits, with its import locks, for a module."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS, slow, *modules], capture_output=True, text=True
    )
    assert done.stdout.split() == ["drm"] * len(modules) + ["True"], done.stderr


def imported_names() -> dict[str, set[str]]:
    """What the modules that a merge needs import from mergekit, read from their source."""
    code = "import mergekit_spectral.host.run_merge, sys; print(*[m.__file__ for n, m in "
    code += "sys.modules.items() if n.startswith('mergekit_spectral')], sep='\\n')"
    names: dict[str, set[str]] = {}
    for file in run(Path(sys.prefix), code).splitlines():
        for node in ast.walk(ast.parse(Path(file).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mergekit."):
                names.setdefault(node.module or "", set()).update(a.name for a in node.names)
    return names


def test_every_name_that_a_merge_imports_is_listed():
    imported = imported_names()
    assert imported["mergekit.io.tasks"] == {"LoaderCache", "SaveTensor"}
    for module, names in imported.items():
        assert names <= set(NAMES.get(module, ())), module


def source_of(module: str, folder: Path) -> Path:
    """Make a package of a module, in packages, and return its file."""
    for part in module.split("."):
        folder = folder / part
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    return folder / "__init__.py"


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A mergekit that has the modules and the names that we rely on, and nothing else."""
    for module, names in NAMES.items():
        code = "def run_merge(merge_config, options): ...\n" if "run_merge" in names else ""
        code += "".join(f"{name} = {{}}\n" for name in names if name != "run_merge")
        source_of(module, tmp_path).write_text(code)
    return tmp_path


def import_all_of(mergekit: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(mergekit)!r}); import mergekit_spectral\n"
    code += f"import {', '.join(NAMES)}\n"
    code += "print(mergekit.__path__, type(mergekit.merge_methods.registry._METHODS).__name__)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_mergekit_that_has_all_names(stand_in: Path):
    done = import_all_of(stand_in)
    assert "MethodTable" in done.stdout
    assert str(stand_in) in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("module", "name"), [(m, names[-1]) for m, names in NAMES.items()])
def test_a_mergekit_that_lacks_a_name_is_left_alone(module: str, name: str, stand_in: Path):
    file = source_of(module, stand_in)
    file.write_text(re.sub(rf"\b{name}\b", "another", file.read_text()))
    done = import_all_of(stand_in)
    assert done.returncode == 0
    (warning,) = done.stderr.splitlines()
    assert (
        f"does not fit this version of mergekit, which continues without it: {module} has no "
        in (warning)
    )
    assert warning.endswith(f"{name}.")


def test_a_run_merge_of_another_signature_is_left_alone(stand_in: Path):
    source_of("mergekit.merge", stand_in).write_text("def run_merge(recipe, out_path): ...\n")
    done = import_all_of(stand_in)
    (warning,) = done.stderr.splitlines()
    assert warning.endswith("run_merge has no parameter merge_config, options.")


def test_a_mergekit_that_we_do_not_know_imports_where_warnings_are_errors(stand_in: Path):
    source_of("mergekit.merge_methods.registry", stand_in).write_text("methods = {}\n")
    code = f"import sys; sys.path.insert(0, {str(stand_in)!r}); import torch\n"
    code += "import mergekit.merge_methods.registry as r; print(r.methods)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{}"
    assert done.stderr.count("mergekit-spectral does not fit this version of mergekit") == 1


@pytest.fixture
def table() -> MethodTable:
    """mergekit's own methods, as they are before anybody has asked for ours."""
    own = {m.spec.name: m for m in registered_methods() if m.spec.name not in OURS}
    return MethodTable(own)


def test_ours_join_when_somebody_asks(table: MethodTable):
    before = set(table)
    assert table["ties"].spec.name == "ties"
    with pytest.raises(KeyError, match="drn"):
        table["drn"]
    assert set(table) - before == OURS
    assert {method.spec.name for method in table.values()} == set(table)


def test_a_name_that_is_taken_stays_theirs(table: MethodTable, caplog: pytest.LogCaptureFixture):
    theirs = replace(table["ties"], method_name="star")
    table["star"] = theirs
    assert table["drm"].spec.name == "drm"
    assert table["star"] is theirs
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "a merge method named 'star' is registered already" in record.getMessage()


def test_methods_that_cannot_be_imported_are_tried_again(
    table: MethodTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "mergekit_spectral.methods.catalog", None)
        for _ in range(2):
            with pytest.raises(KeyError):
                table["drm"]
            assert len(table.values()) == len(table)
    (record,) = caplog.records
    assert "mergekit-spectral's methods cannot be imported" in record.getMessage()
    assert table["drm"].spec.name == "drm"
