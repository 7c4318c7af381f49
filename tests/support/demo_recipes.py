"""Run the commands of `mergekit_spectral.demo.recipes` without importing PyTorch each time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from support.interpreters import run_module

from mergekit_spectral.demo import recipes


def run_recipes_in_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `run_recipe` and `tune_recipe` run their commands in forks, in this process only."""
    stand_in = SimpleNamespace(run=_run, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(recipes, "subprocess", stand_in)


def _run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: IO[str],
    stderr: int,
    check: bool,
) -> subprocess.CompletedProcess[bytes]:
    python, option, module, *arguments = command
    assert (python, option, stderr, check) == (sys.executable, "-m", subprocess.STDOUT, False)
    done = run_module(module, *arguments, cwd=cwd, environment=env)
    stdout.write((done.stdout + done.stderr).decode())
    return done
