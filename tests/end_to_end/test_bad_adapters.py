"""Adapters that are wrong, or wrong here: refused in one sentence, and nothing looks merged."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from end_to_end import checkpoints
from end_to_end.checkpoints import Family, write_adapter
from end_to_end.command import mergekit_multi, mergekit_yaml, try_mergekit_yaml
from mergekit.io.tasks import LoaderCache
from safetensors.torch import load_file, save_file

MERGED = {"config.json", "model.safetensors", "model.safetensors.index.json"}
TARGETS = ["q_proj", "v_proj"]
FACTOR = "base_model.model.model.layers.1.self_attn.v_proj.lora_{}.weight"
WEIGHT = "model.layers.1.self_attn.v_proj"
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the Llama."""
    folder = tmp_path_factory.mktemp("good")
    return write_adapter(folder / "good", checkpoints.llama(), 1, TARGETS)


@pytest.fixture
def bad(good: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(good, tmp_path / "bad"))


def _remove_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()


def _remove_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()


def _break_config(adapter: Path) -> None:
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", ')


def _name_another_type(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "NEWEST"}))


def _truncate(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def _overwrite(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_text("<html>Not found</html>")


def _pickle_code(adapter: Path) -> None:
    _remove_weights(adapter)
    torch.save({"run": print}, adapter / "adapter_model.bin")


def _drop(half: str) -> Damage:
    return partial(_edit, half=half, change=lambda _: None)


def _reshape(half: str, *shape: int) -> Damage:
    return partial(_edit, half=half, change=lambda _: torch.ones(shape))


def _set(half: str, value: float) -> Damage:
    return partial(_edit, half=half, change=lambda factor: factor.fill_(value))


def _edit(adapter: Path, half: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Put `change` of the factor A or B of one weight in its place, or nothing."""
    path = adapter / "adapter_model.safetensors"
    factors = load_file(path)
    changed = change(factors.pop(FACTOR.format(half)))
    if changed is not None:
        factors[FACTOR.format(half)] = changed
    save_file(factors, path)


DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "no configuration": (_remove_config, ["adapter_config.json", "save_pretrained"]),
    "no weights": (_remove_weights, ["adapter_model.safetensors", "adapter_model.bin"]),
    "a broken configuration": (_break_config, ["adapter_config.json"]),
    "an unknown type": (_name_another_type, ["'NEWEST'", "peft"]),
    "a truncated file": (_truncate, ["adapter_model.safetensors", "truncated"]),
    "another file": (_overwrite, ["adapter_model.safetensors", "damaged"]),
    "code": (_pickle_code, ["adapter_model.bin", "adapter_model.safetensors"]),
    "no A": (_drop("A"), [WEIGHT, "lora_A is missing"]),
    "no B": (_drop("B"), [WEIGHT, "lora_B is missing"]),
    "factors of two ranks": (_reshape("A", 3, 32), [WEIGHT, "(3, 32)", "(16, 4)"]),
    "a factor of one axis": (_reshape("B", 16), [WEIGHT, "(16,)"]),
    "a longer B": (_reshape("B", 17, 4), [f"{WEIGHT}.weight", "[17, 32]", "[16, 32]"]),
    "a wider A": (_reshape("A", 4, 33), [f"{WEIGHT}.weight", "[16, 33]", "[16, 32]"]),
    "not a number": (_set("A", math.nan), [f"{WEIGHT}.weight", "NaN"]),
    "infinity": (_set("B", math.inf), [f"{WEIGHT}.weight", "infinity"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(damage: str, llama: Family, bad: Path, out: Path):
    inflict, named = DAMAGES[damage]
    inflict(bad)
    _assert_refused(_recipe(llama, bad), out, str(bad), *named)


@pytest.mark.parametrize("path", ["/no/such/adapter", "no/such-adapter", "not a path"])
def test_a_path_that_does_not_exist(
    path: str, llama: Family, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _assert_refused(_recipe(llama, path), out, f"Adapter {path} is neither a folder here nor")


def test_a_whole_model_in_an_adapters_place(llama: Family, out: Path):
    told = [f"Adapter {llama.tuned[0]} has no adapter_config.json", "without a base before it"]
    _assert_refused(_recipe(llama, llama.tuned[0]), out, *told)


def test_of_another_architecture(llama: Family, tmp_path: Path, out: Path):
    other = write_adapter(tmp_path / "other", checkpoints.bert(), 1, ["query"])
    told = "of the 2 weights that it changes 0 are there and 2 are not"
    _assert_refused(_recipe(llama, other), out, str(other), str(llama.base), told, "layer.0.")


def test_of_more_layers(llama: Family, tmp_path: Path, out: Path):
    deeper = checkpoints.llama(num_hidden_layers=5)
    adapter = write_adapter(tmp_path / "deeper", deeper, 1, TARGETS)
    told = "of the 10 weights that it changes 6 are there and 4 are not"
    _assert_refused(_recipe(llama, adapter), out, str(adapter), told, "layers.3.self_attn.q_proj")


def test_of_another_size(llama: Family, tmp_path: Path, out: Path):
    wider = checkpoints.llama(intermediate_size=64)
    adapter = write_adapter(tmp_path / "wider", wider, 1, ["up_proj"])
    _assert_refused(_recipe(llama, adapter), out, str(adapter), "up_proj", "[64, 32]", "[48, 32]")


def test_of_another_vocabulary(llama: Family, tmp_path: Path, out: Path):
    larger = checkpoints.llama(vocab_size=40)
    settings: dict[str, Any] = {"modules_to_save": ["embed_tokens"]}
    adapter = write_adapter(tmp_path / "larger", larger, 1, TARGETS, **settings)
    told = ["embed_tokens", "[40, 32]", "[29, 32]", "vocabulary"]
    _assert_refused(_recipe(llama, adapter), out, str(adapter), *told)


def test_biases_for_layers_without(llama: Family, tmp_path: Path, out: Path):
    adapter = write_adapter(tmp_path / "a", checkpoints.llama(), 1, TARGETS, lora_bias=True)
    _assert_refused(_recipe(llama, adapter), out, str(adapter), "q_proj.bias", "lora_bias")


def test_nothing_that_fits(llama: Family, tmp_path: Path, out: Path, bad: Path):
    save_file(
        {"base_model.model.score.weight": torch.ones(2, 32)}, bad / "adapter_model.safetensors"
    )
    _assert_refused(_recipe(llama, bad), out, str(bad), str(llama.base), "changes no weight")


def test_the_same_sentence_whatever_the_order(llama: Family, bad: Path, good: Path, out: Path):
    """The recipe's models reach us as a set, whose order differs from run to run."""
    also = Path(shutil.copytree(good, bad.parent / "also-bad"))
    for adapter in (bad, also):
        _remove_weights(adapter)
    for order in ([good, bad, also], [also, bad, good]):
        _assert_refused(_recipe(llama, *order), out, f"Adapter {also} has no weights")


def test_in_multi(llama: Family, bad: Path, good: Path, out: Path):
    """What was merged before stays; the merge with the bad adapter leaves nothing."""
    _drop("A")(bad)
    step = {"name": "step", **_recipe(llama, good)}
    with pytest.raises(AssertionError, match="only half of"):
        mergekit_multi([step, {**_recipe(llama, bad), "base_model": "step"}], out)
    assert (out.parent / "steps" / "step" / "model.safetensors").is_file()
    assert not out.exists()


def test_mergekit_is_left_as_it_was(llama: Family, bad: Path, good: Path, out: Path):
    """After a refusal, an error half-way and a merge, its cache knows no more adapters."""
    before = _adapted_loaders()
    _set("A", math.nan)(bad)
    assert try_mergekit_yaml(_recipe(llama, good, bad), out).exit_code == 1
    assert _adapted_loaders() == before
    _drop("B")(bad)
    assert try_mergekit_yaml(_recipe(llama, good, bad), out).exit_code == 1
    assert _adapted_loaders() == before
    mergekit_yaml(_recipe(llama, good), out)
    assert _adapted_loaders() == before


def _adapted_loaders() -> list[Any]:
    return [reference for reference in LoaderCache.loaders if reference.lora]


def _recipe(llama: Family, *adapters: Path | str) -> dict[str, Any]:
    return {
        "merge_method": "drm",
        "base_model": str(llama.base),
        "models": [{"model": f"{llama.base}+{adapter}"} for adapter in adapters],
    }


def _assert_refused(recipe: dict[str, Any], out: Path, *named: str) -> None:
    """Check for one sentence with all that is `named`, and that no output looks merged."""
    result = try_mergekit_yaml(recipe, out)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    (sentence,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert sentence == result.output.strip().splitlines()[-1]
    for part in named:
        assert part in sentence
    assert sentence.endswith((".", "?"))
    assert not (out.exists() and MERGED & {path.name for path in out.iterdir()})
