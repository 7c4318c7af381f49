"""The source distribution has what its tests need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the source distribution, without the folder that they are in."""
    out = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", out]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


@pytest.mark.parametrize(
    "folder", ["mergekit_spectral", "recipes", "docs", "tests", "benchmarks", "Makefile"]
)
def test_has_all_of(folder: str, files: set[str]):
    path = ROOT / folder
    found = [path] if path.is_file() else path.rglob("*")
    wanted = {file.relative_to(ROOT).as_posix() for file in found if file.is_file()}
    assert {name for name in wanted if "__pycache__" not in name} <= files


def test_has_neither_caches_nor_environments(files: set[str]):
    assert not {name for name in files if "__pycache__" in name or ".venv" in name}
