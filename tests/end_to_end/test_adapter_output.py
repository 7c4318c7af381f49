"""Where `mergekit-spectral adapter` writes: nothing else is lost, nothing half-written is left."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from support import checkpoints, hub
from support.checkpoints import Family
from support.interrupted import command_on_a_full_disk, killed_at

from mergekit_spectral.adapters.writing import NewLayer, write_adapter
from mergekit_spectral.command_line.main import main

FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors"}
Contents = dict[str, bytes]


@pytest.fixture
def recipe(llama: Family, tmp_path: Path) -> Path:
    base = checkpoints.llama()
    adapters = [checkpoints.write_adapter(tmp_path / str(s), base, s, ["q_proj"]) for s in (1, 2)]
    path = tmp_path / "recipe.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "merge_method": "star",
                "base_model": str(llama.base),
                "models": [{"model": f"{llama.base}+{adapter}"} for adapter in adapters],
            }
        )
    )
    return path


def run(recipe: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["adapter", str(recipe), str(out), *options])


def contents(folder: Path) -> Contents:
    """Return all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_refused(result: Result, message: str) -> None:
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def put_model(folder: Path, recipe: Path) -> str:
    checkpoints.llama().save_pretrained(folder)
    return "contains a model (config.json), and transformers would load the adapter"


def put_weights(folder: Path, recipe: Path) -> str:
    (folder / "model-00001-of-00002.safetensors").write_text("")
    return "contains a model (model-00001-of-00002.safetensors)"


def put_adapter(folder: Path, recipe: Path) -> str:
    checkpoints.write_adapter(folder, checkpoints.llama(), 3, ["v_proj"])
    return "README.md and adapter_config.json and adapter_model.safetensors; add --overwrite"


def put_card(folder: Path, recipe: Path) -> str:
    (folder / "README.md").write_text("mine")
    return "already contains README.md; add --overwrite"


@pytest.mark.parametrize("put", [put_model, put_weights, put_adapter, put_card])
def test_folders_that_hold_something_are_refused(put: Any, recipe: Path, out: Path):
    out.mkdir()
    message = put(out, recipe)
    before = contents(out)
    assert_refused(run(recipe, out), message)
    assert contents(out) == before


@pytest.mark.parametrize("options", [(), ("--overwrite",)], ids=str)
@pytest.mark.parametrize("way", ["the folder", "a link", "dots"])
def test_inputs_are_never_overwritten(way: str, options: tuple[str, ...], recipe: Path, out: Path):
    adapter = recipe.parent / "1"
    before = contents(adapter)
    out.symlink_to(adapter)
    places = {"the folder": adapter, "a link": out, "dots": adapter.parent / "2" / ".." / "1"}
    message = f"is the adapter {adapter}, and would be overwritten; give another folder"
    assert_refused(run(recipe, places[way], *options), message)
    base = Path(yaml.safe_load(recipe.read_text())["base_model"])
    assert_refused(run(recipe, base, *options), "is the base model, and would be overwritten")
    assert contents(adapter) == before


def test_an_input_in_the_hubs_cache_is_never_overwritten(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = hub.store(tmp_path / "hub", "lab/lora", "main", tmp_path / "1")
    recipe.write_text(recipe.read_text().replace(str(tmp_path / "1"), "lab/lora"))
    snapshot = tmp_path / "hub" / "models--lab--lora" / "snapshots" / commit
    assert_refused(run(recipe, snapshot, "--overwrite"), "is the adapter lab/lora")


@pytest.mark.parametrize("exchange", [True, False])
def test_an_adapter_is_replaced_and_other_files_are_kept(
    exchange: bool, recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    if not exchange:  # as on systems that cannot exchange two folders in one step
        monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    fresh = out.parent / "fresh"
    assert run(recipe, fresh).exit_code == 0
    assert contents(fresh).keys() == FILES
    put_adapter(out, recipe)
    # A pickle of before would be read by nobody, but looks as if it belonged to the new one.
    torch.save({}, out / "adapter_model.bin")
    others = {"notes.txt": b"mine", "runs/1/log": b"too", ".git/HEAD": b"ref"}
    for name, text in others.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(text)
    out.chmod(0o751)
    result = run(recipe, out, "--overwrite")
    assert result.exit_code == 0, result.output
    expected = contents(fresh) | others
    expected["README.md"] = expected["README.md"].replace(b"\n# fresh\n", b"\n# out\n")
    assert contents(out) == expected
    assert out.stat().st_mode & 0o777 == 0o751
    assert {path.name for path in out.parent.iterdir()} == {"1", "2", "fresh", "out", "recipe.yml"}


def test_other_files_of_a_folder_without_an_adapter_are_kept(recipe: Path, out: Path):
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert run(recipe, out).exit_code == 0
    assert contents(out).keys() == FILES | {"notes.txt"}


def test_links_are_replaced_and_not_written_through(recipe: Path, out: Path):
    out.mkdir()
    elsewhere = {name: out.parent / f"elsewhere-{name}" for name in FILES}
    for name, file in elsewhere.items():
        file.write_text("mine")
        (out / name).symlink_to(file)
    assert run(recipe, out, "--overwrite").exit_code == 0
    assert {file.read_text() for file in elsewhere.values()} == {"mine"}
    assert not any((out / name).is_symlink() for name in FILES)


def test_the_working_directory_is_not_replaced(
    recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    out.mkdir()
    monkeypatch.chdir(out)
    assert run(recipe, Path(".")).exit_code == 0
    assert contents(out).keys() == FILES
    card = (out / "README.md").read_text()
    assert "\n# out\n" in card
    message = "cannot be the working directory or one of its parents"
    assert_refused(run(recipe, Path("."), "--overwrite"), message)


@pytest.mark.parametrize("limit", [0, 100, 1000, 3000])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk(earlier: bool, limit: int, recipe: Path, out: Path):
    assert run(recipe, out.parent / "whole").exit_code == 0
    assert max(map(len, contents(out.parent / "whole").values())) > 3000
    if earlier:
        put_adapter(out, recipe)
    before = contents(out.parent)
    status, told = command_on_a_full_disk(
        limit, "adapter", str(recipe), str(out), "--overwrite", "--quiet"
    )
    assert status == 1
    assert told.startswith(f"Error: {out} cannot be written to (")
    assert "File too large" in told
    assert told.count("\n") == 1
    assert contents(out.parent) == before
    assert out.exists() is earlier


@pytest.mark.parametrize("earlier", [False, True])
def test_killed_at_any_moment(earlier: bool, tmp_path: Path):
    """What is there is the old adapter or the new one, byte for byte, or no adapter at all."""

    def write(folder: Path, name: str, value: float) -> None:
        layers = {"q_proj": NewLayer(torch.full((4, 2), value), torch.full((2, 3), value))}
        settings = {"all_modules": ["q_proj"], "base_model": name, "dtype": torch.float32}
        write_adapter(folder, layers, card=name, **settings)

    write(tmp_path / "old", "old", 1.0)
    write(tmp_path / "new", "new", 2.0)
    old, new = (contents(tmp_path / name) | {"runs/notes": b"mine"} for name in ("old", "new"))
    seen = []
    for event in range(200):
        out = tmp_path / f"{event}" / "out"
        (out / "runs").mkdir(parents=True)
        (out / "runs" / "notes").write_text("mine")
        if earlier:
            write(out, "old", 1.0)
        killed = killed_at(event, out.parent, lambda out=out: write(out, "new", 2.0))
        found = {n: b for n, b in contents(out).items() if not n.startswith(".unfinished-")}
        if earlier or "adapter_config.json" in found:
            assert found in (old, new), event
        assert found["runs/notes"] == b"mine"
        seen.append(found)
        if not killed:
            break
    else:
        pytest.fail("it never ended by itself")
    assert len(seen) > 10
    assert seen[0] != new
    assert seen[-1] == new


def path_under_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "out"


def no_name(folder: Path) -> Path:
    return folder / ("n" * 300)


def no_folder_for_files(folder: Path) -> Path:
    """Not even root can make files there."""
    return Path("/proc/self/out")


@pytest.mark.parametrize("place", [path_under_a_file, no_name, no_folder_for_files])
def test_places_that_cannot_be_written_to(place: Any, recipe: Path, tmp_path: Path):
    out = place(tmp_path)
    before = contents(tmp_path)
    assert_refused(run(recipe, out), f"{out.name[:20]}")
    assert "cannot be written to (" in " ".join(run(recipe, out).output.split())
    assert contents(tmp_path) == before


def test_parents_are_made_and_removed_again(recipe: Path, tmp_path: Path):
    deep = tmp_path / "a" / "b" / "out"
    status, _ = command_on_a_full_disk(10, "adapter", str(recipe), str(deep))
    assert status == 1
    assert not (tmp_path / "a").exists()
    assert run(recipe, deep).exit_code == 0
    assert contents(deep).keys() == FILES


def test_a_dtype_whose_range_is_too_small(llama: Family, recipe: Path, out: Path):
    values = yaml.safe_load(recipe.read_text())
    for scale, lam in ((1e12, "inf"), (1e-18, "0")):
        values["parameters"] = {"lambda": scale}
        recipe.write_text(yaml.safe_dump(values))
        assert_refused(run(recipe, out, "--dtype", "float16"), "is out of the range of float16")
        assert not out.exists()
        assert run(recipe, out.parent / lam, "--dtype", "bfloat16").exit_code == 0


@pytest.mark.parametrize(
    "option",
    [
        ("--energy", "nan"),
        ("--energy", "0"),
        ("--energy", "1.5"),
        ("--energy", "inf"),
        ("--rank", "0"),
        ("--rank", "-1"),
        ("--rank", "nan"),
        ("--random-seed", str(2**70)),
    ],
    ids=" ".join,
)
def test_values_out_of_range(option: tuple[str, str], recipe: Path, out: Path):
    result = run(recipe, out, *option)
    assert result.exit_code == 2
    assert f"Invalid value for '{option[0]}': " in result.output
    assert not out.exists()
