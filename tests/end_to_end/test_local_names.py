"""Models named as the hub names its own, but in folders here: no command asks the hub for them."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from mergekit import card
from mergekit.scripts import run_yaml
from support import checkpoints, hub
from support.checkpoints import Family

from mergekit_spectral.command_line.main import main

NAMES = ["base", "org/base"]


@pytest.fixture(params=["offline", "no network"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of a network that is not there, by either of two ways of not being there."""
    asked: list[Any] = []

    def look_up(*arguments: Any, **options: Any) -> Any:
        asked.append(arguments)
        raise socket.gaierror("Temporary failure in name resolution")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", request.param == "offline")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.lower(), raising=False)
    return asked


@pytest.fixture
def folder(llama: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with models in it."""
    for name in NAMES:
        shutil.copytree(llama.base, tmp_path / name)
        checkpoints.write_tokenizer(tmp_path / name)
    shutil.copytree(llama.tuned[0], tmp_path / "tuned")
    for seed, name in enumerate(("lora", "org/lora")):
        checkpoints.write_adapter(tmp_path / name, checkpoints.llama(), seed, ["q_proj"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(method: str, base: str, inputs: list[str]) -> None:
    models = [{"model": name} for name in inputs]
    recipe: dict[str, Any] = {"merge_method": method, "base_model": base, "models": models}
    recipe["parameters"] = {"weight": 1.0}
    Path("recipe.yml").write_text(yaml.safe_dump(recipe))


@pytest.mark.parametrize("base", NAMES)
def test_adapter(base: str, folder: Path, asked: list[Any]):
    write("drm", base, [f"{base}+lora", f"{base}+org/lora"])
    result = CliRunner().invoke(main, ["adapter", "recipe.yml", "out"])
    assert result.exit_code == 0, result.output
    text = Path("out/README.md").read_text()
    assert f"A LoRA adapter for {base}, merged" in text
    assert "huggingface.co" not in text
    assert asked == []


def test_a_model_of_the_hub_is_linked(llama: Family, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.store(folder / "hub", "lab/base", "main", llama.base)
    write("drm", "lab/base", ["lab/base+lora"])
    result = CliRunner().invoke(main, ["adapter", "recipe.yml", "out"])
    assert result.exit_code == 0, result.output
    assert "[lab/base](https://huggingface.co/lab/base)" in Path("out/README.md").read_text()


@pytest.mark.parametrize("inputs", [["tuned"], ["{}+lora", "{}+org/lora"]], ids=["full", "lora"])
@pytest.mark.parametrize("base", NAMES)
def test_mergekit_yaml(base: str, inputs: list[str], folder: Path, asked: list[Any]):
    write("drm", base, [name.format(base) for name in inputs])
    result = CliRunner().invoke(run_yaml.main, ["recipe.yml", "out", "--quiet"])
    assert result.exit_code == 0, result.output
    text = Path("out/README.md").read_text()
    assert f"using {base} as a base" in text
    assert "huggingface.co" not in text
    assert Path("out/tokenizer.json").is_file()
    assert asked == []


def test_mergekits_own_methods_are_left_alone(folder: Path, asked: list[Any]):
    """They ask the hub as they always did."""
    write("drm", "base", ["tuned"])
    assert CliRunner().invoke(run_yaml.main, ["recipe.yml", "out", "--quiet"]).exit_code == 0
    with pytest.raises(Exception, match=r"offline|resolution|connect"):
        card.is_hf("base")


@pytest.mark.parametrize("base", NAMES)
def test_check_warns_where_mergekits_own_methods_would_ask(
    base: str, folder: Path, asked: list[Any]
):
    write("task_arithmetic", base, ["tuned"])
    result = CliRunner().invoke(main, ["check", "recipe.yml", "--out", "out"])
    assert f"the Hub for a model named {base}," in result.output
    assert "the Hub for a model named tuned," in result.output
    assert asked == []
    merge = CliRunner().invoke(run_yaml.main, ["recipe.yml", "out", "--quiet"])
    assert merge.exit_code != 0
    assert list(Path("out").glob("*.safetensors"))
    assert not Path("out/tokenizer.json").exists()


def test_check_does_not_warn_of_paths(folder: Path, asked: list[Any]):
    write("task_arithmetic", "./base", [str(folder / "tuned")])
    result = CliRunner().invoke(main, ["check", "recipe.yml", "--out", "out"])
    assert "the hub" not in result.output
    merge = CliRunner().invoke(run_yaml.main, ["recipe.yml", "out", "--quiet"])
    assert merge.exit_code == 0
    assert asked == []
