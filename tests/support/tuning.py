"""Run `mergekit-spectral tune` on tiny adapters, and read what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result
from peft import PeftModel
from support import checkpoints
from support.answers import write_answers
from support.checkpoints import Family
from support.recipe_builders import recipe
from transformers import AutoModelForCausalLM

from mergekit_spectral.command_line.main import main

HEAD = "# My recipe.\n"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["tune", *map(str, arguments)])


def tuned(*arguments: Any) -> str:
    result = run(*arguments)
    if result.exit_code:
        raise AssertionError(result.output) from result.exception
    return result.output


def write(recipe: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yml"
    path.write_text(HEAD + yaml.safe_dump(recipe, sort_keys=False))
    return path


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def settings(out: Path) -> set[str]:
    return {one["name"] for one in report(out)["searched"]}


def write_family(folder: Path) -> Family:
    """Write a base and two adapters with an effect on its answers, each with its own examples.

    Returns:
        The family. Beside its base are the examples, ``task-1.jsonl`` and ``task-2.jsonl``.
    """
    base = checkpoints.llama()
    base.save_pretrained(folder / "base")
    checkpoints.write_tokenizer(folder / "base")
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    paths = []
    for seed in (1, 2):
        path = checkpoints.write_adapter(folder / f"adapter-{seed}", base, seed, targets, rank=3)
        loaded = AutoModelForCausalLM.from_pretrained(folder / "base")
        adapted = PeftModel.from_pretrained(loaded, path)
        write_answers(folder / f"task-{seed}.jsonl", adapted)
        paths.append(path)
    return Family(folder / "base", tuple(paths))


def adapters(method: str, family: Family, **values: Any) -> dict[str, Any]:
    models = [{"model": f"{family.base}+{path}"} for path in family.tuned]
    return {**recipe(method, family, **values), "models": models}
