"""The installed commands, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from support.checkpoints import Family
from support.expected import assert_merged
from support.interpreters import run_module
from support.recipe_builders import recipe


def run(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(command)
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def test_mergekit_yaml(llama: Family, tmp_path: Path, out: Path):
    written = tmp_path / "recipe.yml"
    written.write_text(yaml.safe_dump(recipe("drm", llama, density=0.5)))
    result = run("mergekit-yaml", written, out, "--no-copy-tokenizer")
    assert result.returncode == 0, result.stderr
    assert_merged(out, llama, "drm", {"density": 0.5})


def test_mergekit_multi(llama: Family, tmp_path: Path, out: Path):
    written = tmp_path / "recipes.yml"
    written.write_text(yaml.safe_dump({"name": "merged", **recipe("star", llama)}))
    result = run("mergekit-multi", written, "-I", tmp_path, "--no-copy-tokenizer")
    assert result.returncode == 0, result.stderr
    assert_merged(tmp_path / "merged", llama, "star")


def test_a_refusal_is_one_sentence(llama: Family, tmp_path: Path, out: Path):
    written = tmp_path / "recipe.yml"
    written.write_text(yaml.safe_dump(recipe("star", llama, eta=0)))
    module = "mergekit.scripts.run_yaml"
    result = run_module(module, str(written), str(out), cwd=tmp_path, environment=os.environ)
    assert result.returncode == 1
    refusal = "Error: star: parameter `eta` must be above 0 and at most 100, got 0."
    assert result.stderr.decode().strip().splitlines()[-1] == refusal
    assert b"Traceback" not in result.stderr
    assert not out.exists()
