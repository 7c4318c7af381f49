"""Run mergekit's commands in this process, because importing them again would take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml
from click.testing import CliRunner, Result
from mergekit.scripts import merge_raw_pytorch, multimerge, run_yaml


def mergekit_yaml(recipe: dict[str, Any], out: Path, *options: str) -> Path:
    """Run `mergekit-yaml` on `recipe`; return the folder of the merged model."""
    return _succeeded(try_mergekit_yaml(recipe, out, *options), out)


def try_mergekit_yaml(recipe: dict[str, Any], out: Path, *options: str) -> Result:
    """Run `mergekit-yaml` on a recipe that may fail."""
    return _run(run_yaml.main, [_saved([recipe], out), str(out)], options)


def mergekit_multi(recipes: list[dict[str, Any]], out: Path, *options: str) -> Path:
    """Run `mergekit-multi` on recipes that may use each other; return the last model's folder."""
    arguments = [_saved(recipes, out), "--out-path", str(out), "-I", str(out.parent / "steps")]
    return _succeeded(_run(multimerge.main, arguments, options), out)


def mergekit_pytorch(recipe: dict[str, Any], out: Path, *options: str) -> Path:
    """Run `mergekit-pytorch`, which merges files of tensors instead of models."""
    return _succeeded(_run(merge_raw_pytorch.main, [_saved([recipe], out), str(out)], options), out)


def _saved(recipes: list[dict[str, Any]], out: Path) -> str:
    path = out.parent / f"{out.name}.yml"
    path.write_text(yaml.safe_dump_all(recipes, sort_keys=False))
    return str(path)


def _run(command: click.Command, arguments: list[str], options: tuple[str, ...]) -> Result:
    quiet = ["--quiet", "--no-copy-tokenizer"]
    return CliRunner().invoke(command, [*arguments, *quiet, *options])


def _succeeded(result: Result, out: Path) -> Path:
    if result.exit_code != 0:
        raise AssertionError(result.output) from result.exception
    return out
