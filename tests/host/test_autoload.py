"""Installed, editable, uninstalled; every import order; threads, reloads and pickles."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from mergekit.merge_methods import registered_methods
from support.interpreters import output_of

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
    # mergekit.merge imports torch by importing transformers, which the forks have imported.
    new = first == "mergekit.merge"
    printed = run(Path(sys.prefix), code) if new else output_of(code)
    assert printed.split("\n") == ["known", "True"]


def test_without_autoload_importing_the_package_registers():
    off = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    after = f"import mergekit.merge\n{KNOWN}import mergekit_spectral\n{KNOWN}"
    assert output_of(after, **off).split() == ["unknown", "known"]
    assert output_of(f"import mergekit_spectral\n{KNOWN}", **off) == "known"


def test_import_torch_and_a_look_up_load_next_to_nothing():
    code = "import sys, torch; print(*sorted(m for m in sys.modules if m.startswith('mergekit')))"
    code += f"\n{KNOWN}print({{'transformers', 'peft'}} & sys.modules.keys())"
    light = ["", ".autoload", ".host", ".host.changes", ".host.import_hooks", ".host.names"]
    light.append(".host.registration")
    modules = " ".join(f"mergekit_spectral{name}" for name in light)
    assert run(Path(sys.prefix), code).split("\n") == [modules, "known", "set()"]


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
import torch
import importlib, inspect, mergekit.architecture.auto, mergekit.merge, mergekit.merge_methods
import mergekit.evo.genome
for name in ["mergekit.merge_methods.registry", "mergekit.merge", "mergekit.architecture.auto",
             "mergekit.evo.genome"]:
    module = importlib.reload(importlib.import_module(name))
    assert inspect.getsource(module)
    assert "drm" in mergekit.evo.genome.METHOD_PARAM_MAPS
    merged = [mergekit.merge.run_merge, mergekit.architecture.auto.get_model_tensor_names]
    print([inspect.unwrap(f) is f.__wrapped__ for f in merged], module.__spec__.loader.__module__)
    {KNOWN.strip().replace(chr(10), chr(10) + "    ")}
"""
    lines = output_of(code).split("\n")
    assert lines == ["[True, True] _frozen_importlib_external", "known"] * 4


RUN_MERGE_ELSEWHERE = """
import copy, multiprocessing, pickle, sys
from concurrent.futures import ProcessPoolExecutor
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge
assert pickle.loads(pickle.dumps(run_merge)) is run_merge is copy.deepcopy(run_merge)
nothing = MergeConfiguration.model_construct(merge_method="ties")
context = multiprocessing.get_context(sys.argv[1])
with ProcessPoolExecutor(1, mp_context=context) as pool:
    print(pool.submit(run_merge, nothing, "out", MergeOptions()).exception())
"""


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_run_merge_in_another_process(start: str):
    assert output_of(RUN_MERGE_ELSEWHERE, start) == "No output requested"


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
    assert output_of(THREADS, slow, *modules).split() == ["drm"] * len(modules) + ["True"]
