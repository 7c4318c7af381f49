"""Installed, editable, uninstalled; every import order; and mergekits that we do not know."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from mergekit.merge_methods import MergeMethod, registered_methods, registry

from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.registration import register_methods
from mergekit_spectral.run_merge import wrap_run_merge

ROOT = Path(__file__).parents[1]
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
        "mergekit_spectral.adapter_merge",
        "mergekit_spectral.registration, mergekit_spectral.run_merge",
    ],
)
def test_import_orders(first: str):
    assert run(Path(sys.prefix), f"import {first}\n{KNOWN}") == "known"


@pytest.mark.parametrize(
    "first",
    [
        "torch",
        "mergekit.merge",
        "mergekit_spectral",
        "mergekit_spectral.methods.drm",
        "mergekit_spectral.adapters",
        "mergekit_spectral.adapter_merge",
        "mergekit_spectral.registration, mergekit_spectral.run_merge",
    ],
)
def test_run_merge_is_wrapped_whatever_is_imported_first(first: str):
    code = f"import {first}\nfrom mergekit.merge import run_merge\n"
    code += "print(hasattr(run_merge, '__wrapped__'))"
    assert run(Path(sys.prefix), code) == "True"


def test_without_autoload_importing_the_package_registers():
    off = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    here = Path(sys.prefix)
    assert run(here, f"import mergekit.merge\n{KNOWN}", **off) == "unknown"
    assert run(here, f"import mergekit_spectral\n{KNOWN}", **off) == "known"
    assert run(here, f"import mergekit.merge, mergekit_spectral\n{KNOWN}", **off) == "known"


def test_import_torch_loads_next_to_nothing():
    code = "import sys, torch; print([m for m in sys.modules if m.startswith('mergekit')])"
    loaded = run(Path(sys.prefix), code)
    assert loaded in (
        "['mergekit_spectral.autoload', 'mergekit_spectral']",
        "['mergekit_spectral', 'mergekit_spectral.autoload']",
    )


def test_a_mergekit_that_we_do_not_know_is_left_alone(tmp_path: Path):
    """One warning in a sentence, and mergekit imports, even where warnings are errors."""
    (tmp_path / "mergekit" / "merge_methods").mkdir(parents=True)
    (tmp_path / "mergekit" / "__init__.py").touch()
    (tmp_path / "mergekit" / "merge_methods" / "__init__.py").touch()
    (tmp_path / "mergekit" / "merge_methods" / "registry.py").write_text("methods = {}\n")
    (tmp_path / "mergekit" / "merge.py").write_text("def run_merge(recipe): ...\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch\n"
    code += "import mergekit.merge_methods.registry as r; print(r.methods)"
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "{}"
    assert done.stderr.count("mergekit-spectral does not fit this version of mergekit") == 1


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> dict[str, MergeMethod]:
    """The table behind mergekit's registry, as it was before we came; put back afterwards."""
    table = {m.spec.name: m for m in registered_methods() if m.spec.name not in OURS}
    monkeypatch.setattr(registry, "_METHODS", table)
    return table


def test_registering_twice_changes_nothing(
    methods: dict[str, MergeMethod], caplog: pytest.LogCaptureFixture
):
    register_methods(registry)
    once = dict(methods)
    register_methods(registry)
    assert methods == once
    assert once.keys() >= OURS
    assert not caplog.records


def test_a_name_of_mergekits_own_stays_mergekits(
    methods: dict[str, MergeMethod], caplog: pytest.LogCaptureFixture
):
    theirs = replace(methods["ties"], method_name="star")
    registry.register(theirs)
    register_methods(registry)
    assert methods["star"] is theirs
    assert methods.keys() >= OURS
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "mergekit has a method named 'star' of its own" in record.getMessage()


def test_run_merge_of_another_signature_is_not_wrapped():
    module = ModuleType("mergekit.merge")
    module.run_merge = lambda recipe, out_path: None
    with pytest.raises(TypeError, match="run_merge has no parameter merge_config and options"):
        wrap_run_merge(module)
