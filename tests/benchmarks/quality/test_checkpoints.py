from dataclasses import asdict, replace
from pathlib import Path

import click
import pytest

from benchmarks.quality.checkpoints import (
    Checkpoints,
    completed,
    default_folder,
    read_record,
    write_record,
)
from benchmarks.quality.training.settings import Settings

SETTINGS = Settings.default("lora", "sums", steps=3, seed=0)


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MERGEKIT_SPECTRAL_CACHE", "elsewhere")
    assert default_folder() == Path("elsewhere")
    monkeypatch.delenv("MERGEKIT_SPECTRAL_CACHE")
    assert default_folder() == Path.home() / ".cache/mergekit-spectral/quality"


def test_an_interrupted_body_leaves_no_checkpoint(tmp_path: Path):
    path = tmp_path / "lora" / "sums"

    def stop_halfway() -> None:
        with completed(path) as folder:
            (folder / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert not path.exists()
    with completed(path) as folder:
        assert not list(folder.iterdir())
        (folder / "whole").write_text("")
        assert not path.exists()
    assert [file.name for file in path.iterdir()] == ["whole"]
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_is_finished_if_it_has_the_same_settings(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.is_finished(SETTINGS)
    path = checkpoints.path("lora", "sums")
    with completed(path) as folder:
        write_record(folder, settings=asdict(SETTINGS))
    assert read_record(path) == {"settings": asdict(SETTINGS)}
    assert checkpoints.is_finished(SETTINGS)
    assert not checkpoints.is_finished(Settings.default("full", "sums", steps=3, seed=0))
    with pytest.raises(click.ClickException, match=r"other settings .*steps.*: 3"):
        checkpoints.is_finished(replace(SETTINGS, steps=4))


def test_results_of_an_earlier_checkpoint_are_deleted(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path)
    records = {
        name: checkpoints.results(kind) / "drm" / f"{name}-0.json"
        for name, kind in [("sums-clock", "lora"), ("cities-clock", "lora"), ("sums", "full")]
    }
    for file in (*records.values(), checkpoints.copies("lora") / "of_sums" / "config.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    checkpoints.forget("lora", "sums")
    assert [name for name, file in records.items() if file.exists()] == ["cities-clock", "sums"]
    assert not checkpoints.copies("lora").exists()
