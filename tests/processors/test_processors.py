"""Merges give the same result with all instruction sets and numbers of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reference import relative_error
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1]
TWO_THREADS = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
# Threads must not spin while they wait: that would slow down tests that run at the same time.
TWO_THREADS |= {"OMP_WAIT_POLICY": "passive"}
SETTINGS = {
    "no vector instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "MKL on any processor": {"MKL_CBWR": "COMPATIBLE"},
    "OpenBLAS for Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS for Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "two threads": TWO_THREADS,
}
# Each setting is of one library, so several can be combined. This saves time: the tests take half a
# minute. Two threads are with the settings that leave MKL's results free to depend on threads.
COMBINED = [
    ("no vector instructions", "MKL on any processor", "OpenBLAS for Prescott"),
    ("AVX2", "OpenBLAS for Haswell", "two threads"),
]
MATHEMATICS = [
    "spectral/svd/test_joint.py",
    "spectral/svd/test_factored.py",
    "methods/test_properties.py",
    "methods/test_ties.py",
    "test_golden.py",
]


def environment(*names: str) -> dict[str, str]:
    """Return the environment variables for one thread and few examples, updated by settings."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "few"}
    mine = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    chosen = {key: value for name in names for key, value in SETTINGS[name].items()}
    return mine | one_thread | chosen


@pytest.fixture(scope="module")
def default_merges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("default") / "merged.safetensors"
    subprocess.run(
        [sys.executable, TESTS / "processors/merges.py", out], env=environment(), check=True
    )
    return out


@pytest.mark.parametrize("names", COMBINED, ids=" and ".join)
def test_merges_are_the_same(names: tuple[str, ...], default_merges: Path, tmp_path: Path):
    out = tmp_path / "merged.safetensors"
    command = [sys.executable, TESTS / "processors/merges.py", out]
    subprocess.run(command, env=environment(*names), check=True)
    expected, actual = load_file(default_merges), load_file(out)
    assert expected.keys() == actual.keys()
    errors = {key: relative_error(actual[key], expected[key]) for key in expected}
    assert {key: error for key, error in errors.items() if error > 1e-5} == {}


@pytest.mark.parametrize("names", COMBINED, ids=" and ".join)
def test_mathematical_tests_pass(names: tuple[str, ...]):
    files = [TESTS / file for file in MATHEMATICS]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(
        command,
        env=environment(*names),
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-5000:]
