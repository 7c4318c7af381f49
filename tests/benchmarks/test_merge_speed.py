"""`merge_speed` as the README gives it, on small weights, and the definitions that it times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import relative_error
from support.matrices import gaussian

from benchmarks import plain

ROOT = Path(__file__).parents[2]


def run(folder: Path, *options: str) -> tuple[list[dict[str, Any]], str]:
    """Measure one small shape; return the figures of each case, and what is printed."""
    figures = folder / "figures.json"
    command = [
        *(sys.executable, "-m", "benchmarks.merge_speed", "run", "--shapes", "32x48"),
        *("--inputs", "2", "--runs", "1", "--error", "--json", str(figures), *options),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(figures.read_text())["cases"], result.stdout


def test_run(tmp_path: Path):
    cases, printed = run(tmp_path, "--methods", "drm")
    assert [(case["method"], case["plain"]) for case in cases] == [("drm", False), ("drm", True)]
    for case in cases:
        assert case["failure"] is None
        assert case["seconds"] > 0
        assert case["error"] < 1e-2
    assert "32x48" in printed


def test_run_with_a_rank(tmp_path: Path):
    cases, printed = run(tmp_path, "--methods", "drm,star", "--no-plain", "--kept", "all,0.25,4")
    assert [(case["method"], case["kept"]) for case in cases] == [
        *(("drm", kept) for kept in (None, 0.25, 4)),
        ("star", None),
    ]
    assert all(case["error"] < 1e-4 for case in cases)
    assert "drm, rank 0.25" in printed


@pytest.mark.parametrize("method", plain.DEFINITIONS)
@pytest.mark.parametrize("direction", ["horizontal", "vertical", "auto"])
def test_definitions_in_float32_are_those_in_float64(method: str, direction: str):
    deltas = gaussian((12, 9), 3)
    single = plain.DEFINITIONS[method](deltas, direction, torch.float32)
    double = plain.DEFINITIONS[method](deltas, direction, torch.float64)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert relative_error(single, double) < 1e-5
