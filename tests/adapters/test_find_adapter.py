"""Find an adapter's files, and read its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import pytest
from support import hub, peft_adapters

from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.errors import MergeError


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    peft_adapters.write(tmp_path / "adapter", ["linear"], r=3)
    return tmp_path / "adapter"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_find_in_a_folder(adapter: Path):
    found = find_adapter(str(adapter))
    assert found.name == str(adapter)
    assert isinstance(found.config, peft.LoraConfig)
    assert found.config.r == 3
    assert found.weights == adapter / "adapter_model.safetensors"


def test_find_by_a_relative_path(adapter: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(adapter.parent)
    assert find_adapter("adapter").weights.resolve() == adapter / "adapter_model.safetensors"


def test_safetensors_are_preferred_to_bin(adapter: Path):
    (adapter / "adapter_model.bin").touch()
    assert find_adapter(str(adapter)).weights.suffix == ".safetensors"
    (adapter / "adapter_model.safetensors").unlink()
    assert find_adapter(str(adapter)).weights.suffix == ".bin"


@pytest.mark.usefixtures("offline")
def test_find_by_hub_id_and_revision(adapter: Path, tmp_path: Path):
    cache = tmp_path / "hub"
    commits = {r: hub.store(cache, "someone/lora", r, adapter) for r in ("main", "v2")}
    by_name = [(None, commits["main"]), *commits.items()]
    for revision, commit in [*by_name, *((commit, commit) for commit in commits.values())]:
        found = find_adapter("someone/lora", revision, str(cache))
        assert found.name == "someone/lora"
        assert found.weights.parent.name == commit


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("revision", [None, "v3"])
def test_neither_a_folder_nor_on_the_hub(revision: str | None, tmp_path: Path):
    with pytest.raises(MergeError) as refused:
        find_adapter("someone/none", revision, str(tmp_path))
    at = f" at revision {revision}" if revision else ""
    start = (
        f"Adapter someone/none{at} not found: it is not a folder (working directory {Path.cwd()}"
    )
    assert str(refused.value).startswith(start)


def test_a_folder_is_preferred_to_the_hub(adapter: Path, monkeypatch: pytest.MonkeyPatch):
    """mergekit does the same for models. The revision is ignored for a folder."""
    monkeypatch.chdir(adapter.parent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    assert find_adapter("adapter", "main").weights.is_file()


def test_unknown_settings_are_ignored_with_a_warning(adapter: Path):
    """A newer version of peft may have written them; the warning is peft's own."""
    _configure(adapter, setting_of_tomorrow=None)
    with pytest.warns(UserWarning, match="setting_of_tomorrow"):
        assert find_adapter(str(adapter)).config.peft_type == peft.PeftType.LORA


@pytest.mark.parametrize("kind", ["folder", "file", "model"])
def test_path_without_an_adapter(kind: str, tmp_path: Path):
    path = tmp_path / kind
    if kind == "file":
        path.touch()
    else:
        path.mkdir()
    if kind == "model":
        (path / "config.json").write_text("{}")
    _assert_refused(path, "has no adapter_config.json", "save_pretrained")


@pytest.mark.parametrize("content", ["", "{", "[]", '"LORA"', "null", "\0"])
def test_configuration_that_cannot_be_parsed(content: str, adapter: Path):
    (adapter / "adapter_config.json").write_text(content)
    _assert_refused(adapter, "cannot read its adapter_config.json")


def test_configuration_with_contradictory_settings(adapter: Path):
    _configure(adapter, layers_to_transform=[1], target_modules="linear")
    _assert_refused(adapter, "layers_to_transform", "correct it")


@pytest.mark.parametrize("peft_type", ["TOMORROW", None, 3])
def test_peft_type_that_is_not_supported(peft_type: Any, adapter: Path):
    _configure(adapter, peft_type=peft_type)
    _assert_refused(adapter, repr(peft_type), f"peft {peft.__version__} does not support")


@pytest.mark.parametrize("keys", [[], ["r"]])
def test_configuration_without_a_peft_type(keys: list[str], adapter: Path):
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: config[key] for key in keys}))
    _assert_refused(adapter, "peft_type")


def test_folder_without_weights(adapter: Path):
    (adapter / "adapter_model.safetensors").unlink()
    _assert_refused(adapter, "neither adapter_model.safetensors nor adapter_model.bin")


def _configure(adapter: Path, **settings: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def _assert_refused(path: Path, *named: str) -> None:
    """Check that the adapter is refused with one sentence that contains all parts of `named`."""
    with pytest.raises(MergeError) as refused:
        find_adapter(str(path))
    sentence = str(refused.value)
    assert sentence.startswith(f"Adapter {path}")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    for part in named:
        assert part in sentence
