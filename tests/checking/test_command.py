"""`mergekit-spectral check` on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from support import checkpoints
from support.planted_faults import Workshop, first_input

from mergekit_spectral.command_line.main import main
from mergekit_spectral.scaling.staging import FOLDER


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def written(workshop: Workshop) -> Path:
    """A recipe with a warning and a note, but no error."""
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(workshop.recipe(densty=0.5, gamma=0.1), sort_keys=False))
    return path


def test_lines_and_sizes_are_printed(written: Path, workshop: Workshop):
    status, printed, _ = run(written, "--out", workshop.folder)
    lines = printed.splitlines()
    assert status == 0
    assert lines[0].startswith(f"{written}:8: warning: drm has no parameter `densty`, ")
    assert lines[1].startswith(f"{written}:9: note: drm has no parameter `gamma` ")
    merged = checkpoints.tensors(workshop.family.base)
    count = sum(tensor.numel() for tensor in merged.values())
    size = (workshop.family.base / "model.safetensors").stat().st_size
    matrices = [name for name in merged if name.endswith("_proj.weight")]
    assert (
        f"drm, {count / 1e6:,.1f} million parameters in {len(merged)} tensors, {len(matrices)} "
        "decompositions; about " in lines[2]
    )
    assert f"reads {4 * size / 1e6:.1f} MB, writes {4 * count / 1e6:.1f} MB; " in lines[3]
    assert "takes up to " in lines[4]
    assert lines[5] == f"{written}: runs."


def test_json_has_the_same(written: Path, workshop: Workshop):
    status, printed, _ = run(written, "--json")
    report = json.loads(printed)
    assert status == 0
    assert report["runs"] is True
    assert [finding["line"] for finding in report["findings"]] == [8, 9]
    assert report["costs"]["tensors"] == len(checkpoints.tensors(workshop.family.base))


def test_quiet_leaves_errors(written: Path):
    assert run(written, "--quiet") == (0, "", "")
    written.write_text(written.read_text().replace("merge_method: drm", "merge_method: drn"))
    status, printed, _ = run(written, "--quiet")
    assert status == 1
    assert printed.startswith(
        f"{written}:1: error: there is no merge method drn; did you mean drm?"
    )
    assert len(printed.splitlines()) == 1


def test_a_missing_recipe_is_a_usage_error(tmp_path: Path):
    status, _, printed = run(tmp_path / "nowhere.yml")
    assert status == 2
    assert "does not exist" in printed


@pytest.mark.parametrize("broken", ["read", "look"])
def test_disk_errors_are_sentences(
    broken: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(workshop.recipe()))

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error", "/broken")

    if broken == "read":
        monkeypatch.setattr(Path, "read_bytes", fails)
    else:
        monkeypatch.setattr(shutil, "disk_usage", fails)
    status, _, printed = run(path)
    assert status == 1
    assert "/broken: Input/output error" in printed
    status, _, printed = run(path, "--out", "x" * 300)
    assert status == 1
    assert "Traceback" not in printed


def test_run_needs_no_folder_for_copies(workshop: Workshop):
    path = workshop.folder / "recipe.yml"
    path.write_text(yaml.safe_dump(first_input(workshop.lora_recipe("ties"), weight=1.0)))
    status, printed, _ = run(path)
    assert status == 1
    assert "also for this command; `mergekit-spectral run` needs none." in printed
    status, printed, _ = run(path, "--workers=2", "--out", workshop.folder / "merged")
    assert status == 0
    assert f"in {workshop.folder / 'merged' / FOLDER / 'copies'}." in printed
    assert "merged copies take another " in printed


def test_several_workers(written: Path, workshop: Workshop):
    _, printed, _ = run(written, "--workers=2")
    (line,) = [line for line in printed.splitlines() if "`run` with 2 workers takes" in line]
    assert " GB for each worker, " in line
    _, printed, _ = run(written, "--workers=2", "--json")
    found = json.loads(printed)["run"]
    assert found["workers"] == 2
    assert found["memory_bytes"] > 2 * found["worker_bytes"]
