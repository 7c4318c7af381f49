"""The line at the end of a merge: how much was merged how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result
from mergekit.scripts import multimerge, run_yaml
from support import checkpoints
from support.checkpoints import Family
from support.recipe_builders import recipe

from mergekit_spectral.command_line.main import main

MATRICES = 3 * 7
"""Of three layers: four of the attention and three of the MLP."""
OTHERS = 3 * 2 + 1 + 2
"""Two norms in each layer, one at the end, and the embeddings and the head."""


def save(recipes: list[dict[str, Any]], folder: Path) -> str:
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump_all(recipes))
    return str(path)


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [
        re.sub(r"\d+\.\d s", "… s", line)
        for line in re.split(r"[\r\n]+", result.stderr)
        if line.startswith("Merged ")
    ]


def test_full_fine_tunes(llama: Family, tmp_path: Path):
    arguments = [save([recipe("drm", llama)], tmp_path), str(tmp_path / "out")]
    options = ["--no-copy-tokenizer"]
    assert lines(CliRunner().invoke(run_yaml.main, [*arguments, *options])) == [
        f"Merged by drm into {tmp_path / 'out'} in … s: {MATRICES} matrices in spectral space, "
        f"{OTHERS} tensors entry by entry, 0 tensors copied from the base."
    ]
    quiet = CliRunner().invoke(run_yaml.main, [*arguments, *options, "--quiet"])
    assert quiet.exit_code == 0
    assert quiet.output == ""


def with_adapter(llama: Family, folder: Path) -> dict[str, Any]:
    """Return a recipe whose input changes one matrix in each of three layers."""
    adapter = checkpoints.write_adapter(folder / "adapter", checkpoints.llama(), 1, ["q_proj"])
    return recipe("star", Family(llama.base, (Path(f"{llama.base}+{adapter}"),)))


def test_weights_that_no_input_changes_are_copied(llama: Family, tmp_path: Path):
    path = save([with_adapter(llama, tmp_path)], tmp_path)
    expected = (
        f"3 matrices in spectral space, 0 tensors entry by entry, {MATRICES - 3 + OTHERS} tensors "
        "copied from the base."
    )
    by_mergekit = CliRunner().invoke(
        run_yaml.main, [path, str(tmp_path / "out"), "--no-copy-tokenizer"]
    )
    (line,) = lines(by_mergekit)
    assert line.endswith(f"in … s: {expected}")
    ours = CliRunner().invoke(main, ["run", path, str(tmp_path / "other"), "--workers=1"])
    assert ours.exit_code == 0, ours.output
    assert ours.stdout.endswith(f" Merged: {expected}\n")
    assert lines(ours) == []


def test_one_line_for_each_model_of_several(llama: Family, tmp_path: Path):
    first = {**recipe("drm", llama), "name": "first"}
    second = recipe("star", Family(llama.base, (Path("first"),)))
    steps, out = tmp_path / "steps", tmp_path / "out"
    arguments = [save([first, second], tmp_path), "--out-path", str(out), "-I", str(steps)]
    result = CliRunner().invoke(multimerge.main, [*arguments, "--no-copy-tokenizer"])
    assert [line.partition(" in … s")[0] for line in lines(result)] == [
        f"Merged by drm into {steps / 'first'}",
        f"Merged by star into {out}",
    ]


def test_other_methods_have_none(llama: Family, tmp_path: Path):
    path = save([recipe("task_arithmetic", llama, weight=1.0)], tmp_path)
    result = CliRunner().invoke(run_yaml.main, [path, str(tmp_path / "out"), "--no-copy-tokenizer"])
    assert lines(result) == []
