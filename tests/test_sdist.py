"""The source distribution has what its tests need, and the wheel what the demo needs."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def built(target: str, folder: Path) -> Path:
    """Build a distribution and return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target]
    subprocess.run([*command, "--directory", folder], cwd=ROOT, check=True, capture_output=True)
    (distribution,) = folder.iterdir()
    return distribution


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return built("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def files(sdist: Path) -> set[str]:
    """The files in the source distribution, without the folder that they are in."""
    with tarfile.open(sdist) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


@pytest.mark.parametrize(
    "folder",
    ["mergekit_spectral", "recipes", "docs", "tests", "benchmarks", ".github", "Makefile"],
)
def test_has_all_of(folder: str, files: set[str]):
    path = ROOT / folder
    found = [path] if path.is_file() else path.rglob("*")
    wanted = {file.relative_to(ROOT).as_posix() for file in found if file.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} <= files


def test_has_neither_caches_nor_environments(files: set[str]):
    assert not {name for name in files if "__pycache__" in name or ".venv" in name}


def test_wheel_has_what_the_demo_reads(tmp_path: Path):
    with zipfile.ZipFile(built("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
    source = ROOT / "recipes" / "smollm2"
    wanted = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {"held_out/numbers.jsonl", "examples/numbers.jsonl"} <= wanted
    assert {f"mergekit_spectral/demo/smollm2/{name}" for name in wanted} <= names
    assert not {name for name in names if name.startswith(("tests/", "benchmarks/"))}


def test_pypi_can_show_the_readme(sdist: Path):
    check = [sys.executable, "-m", "twine", "check", "--strict", sdist]
    subprocess.run(check, check=True, capture_output=True)
    with tarfile.open(sdist) as tar:
        name = next(name for name in tar.getnames() if name.endswith("/PKG-INFO"))
        extracted = tar.extractfile(name)
        assert extracted is not None
        shown = extracted.read().decode().partition("\n\n")[2]
    assert shown.startswith("# mergekit-spectral\n")
    links = re.findall(r"\]\(([^)]*)\)|(?:src|srcset|href)=\"([^\"]*)\"", shown)
    assert links
    assert all("".join(link).startswith("https://") for link in links)
