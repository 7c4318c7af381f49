"""Adapters that are wrong, or wrong here: refused in one sentence, and nothing looks merged."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from mergekit.io.tasks import LoaderCache
from safetensors.torch import load, load_file, save_file
from support import checkpoints
from support.checkpoints import Family, write_adapter
from support.command import mergekit_multi, mergekit_yaml, try_mergekit_yaml
from transformers import PreTrainedModel

from mergekit_spectral.command_line.main import main

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
    factors = load(path.read_bytes())
    changed = change(factors.pop(FACTOR.format(half)))
    if changed is not None:
        factors[FACTOR.format(half)] = changed
    save_file(factors, path)


def _configure(**settings: Any) -> Damage:
    def change(adapter: Path) -> None:
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def _nest(adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    nested = "[" * 100_000 + "]" * 100_000
    path.write_text(path.read_text().replace("{", f'{{"nested": {nested},', 1))


def _pickle(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    """Store the adapter's tensors, changed, in a ``.bin``."""

    def pickle(adapter: Path) -> None:
        tensors = load_file(adapter / "adapter_model.safetensors")
        _remove_weights(adapter)
        torch.save(change(tensors), adapter / "adapter_model.bin")

    return pickle


def _each(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return _pickle(lambda tensors: {key: change(tensor) for key, tensor in tensors.items()})


def _quantized(factor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch deprecates it
        return torch.quantize_per_tensor(factor, 0.1, 0, torch.qint8)


def _shrink(rank: int) -> Damage:
    """Cut all factors to another rank than the configuration's."""

    def shrink(adapter: Path) -> None:
        path = adapter / "adapter_model.safetensors"
        tensors = load(path.read_bytes())
        cut = {k: v[:rank] if "lora_A" in k else v[:, :rank] for k, v in tensors.items()}
        save_file({key: tensor.contiguous() for key, tensor in cut.items()}, path)

    return shrink


def _empty(adapter: Path) -> None:
    save_file({}, adapter / "adapter_model.safetensors")


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
    "factors of two ranks": (_reshape("A", 3, 32), [WEIGHT, "[3, 32]", "[16, 4]"]),
    "a factor of one axis": (_reshape("B", 16), [WEIGHT, "[16]"]),
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


CATASTROPHIC = "(([a-z_.]+)+)+!"

WRONG: dict[str, tuple[Damage, list[str]]] = {
    "alpha as text": (_configure(lora_alpha="8"), ["`lora_alpha`", "got '8'"]),
    "alpha not a number": (_configure(lora_alpha=math.nan), ["`lora_alpha`", "got nan"]),
    "alpha infinite": (_configure(lora_alpha=math.inf), ["`lora_alpha`", "got inf"]),
    "alpha beyond float32": (_configure(lora_alpha=1e300), ["`lora_alpha`", "got 1e+300"]),
    "alpha beyond floats": (_configure(lora_alpha=10**400), ["`lora_alpha`", "float32's range"]),
    "alpha true": (_configure(lora_alpha=True), ["`lora_alpha`", "got True"]),
    "alphas as text": (_configure(alpha_pattern="q_proj"), ["`alpha_pattern`", "got 'q_proj'"]),
    "alphas as a list": (_configure(alpha_pattern=["q_proj"]), ["`alpha_pattern`", "['q_proj']"]),
    "an alpha as text": (
        _configure(alpha_pattern={"q_proj": "x"}),
        ["alpha_pattern.q_proj", "'x'"],
    ),
    "a broken pattern": (_configure(alpha_pattern={"(((": 4}), ["`alpha_pattern`", "unterminated"]),
    "a slow pattern": (_configure(alpha_pattern={CATASTROPHIC: 4}), ["`alpha_pattern`", "0.5 s"]),
    "a slow pattern of ranks": (_configure(rank_pattern={CATASTROPHIC: 4}), ["`rank_pattern`"]),
    "ranks as a list": (_configure(rank_pattern=[1]), ["`rank_pattern`", "[1]"]),
    "a rank as text": (_configure(rank_pattern={"q_proj": "4"}), ["rank_pattern.q_proj", "'4'"]),
    "rank 0": (_configure(r=0), ["`r`", "got 0"]),
    "rslora as text": (_configure(use_rslora="no"), ["`use_rslora`", "'no'"]),
    "a nested configuration": (_nest, ["adapter_config.json", "recursion"]),
    "another rank than the factors": (_configure(r=8), ["the rank 8", "have rank 4"]),
    "a pattern of another rank": (_configure(rank_pattern={"v_proj": 6}), ["the rank 6", "v_proj"]),
    "factors of rank 0": (_shrink(0), [".self_attn.", "[0, 32]", "at least 1"]),
    "a factor of size 0": (_reshape("A", 4, 0), [WEIGHT, "[4, 0]"]),
    "no tensors": (_empty, ["adapter_model.safetensors", "no tensors"]),
    "no tensors, pickled": (_pickle(lambda _: {}), ["adapter_model.bin", "no tensors"]),
    "numbers as keys": (
        _pickle(lambda tensors: dict(enumerate(tensors.values()))),
        ["adapter_model.bin", "objects other than tensors"],
    ),
    "a list": (_pickle(lambda tensors: [*tensors.values()]), ["objects other than tensors"]),
    "int8": (_each(lambda factor: factor.to(torch.int8)), ["lora_", "is int8"]),
    "bool": (_each(lambda factor: factor > 0), ["lora_", "is bool"]),
    "fp8": (_each(lambda factor: factor.to(torch.float8_e4m3fn)), ["lora_", "float8_e4m3fn"]),
    "complex": (_each(lambda factor: factor.to(torch.complex64)), ["lora_", "complex64"]),
    "sparse": (_each(lambda factor: factor.to_sparse()), ["lora_", "is sparse"]),
    "meta": (_each(lambda factor: factor.to("meta")), ["lora_", "meta device"]),
    "quantized": (_each(_quantized), ["lora_", "is qint8"]),
    "int8 in safetensors": (
        partial(_edit, half="A", change=lambda factor: factor.to(torch.int8)),
        [FACTOR.format("A"), "is int8"],
    ),
    "fp8 in safetensors": (
        partial(_edit, half="A", change=lambda factor: factor.to(torch.float8_e5m2)),
        [FACTOR.format("A"), "is float8_e5m2"],
    ),
    "complex in safetensors": (
        partial(_edit, half="A", change=lambda factor: factor.to(torch.complex64)),
        [FACTOR.format("A"), "C64"],
    ),
}


@pytest.mark.parametrize("damage", WRONG)
def test_refused_by_every_command(
    damage: str, llama: Family, bad: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mergekit_spectral.adapters.patterns.SECONDS", 0.5)
    monkeypatch.setattr("mergekit_spectral.adapters.lora.SECONDS", 0.5)
    inflict, named = WRONG[damage]
    inflict(bad)
    recipe = _recipe(llama, bad)
    _assert_refused(recipe, out, str(bad), *named)
    for command in ("check", "adapter", "inspect"):
        _assert_refused_by(command, recipe, out, str(bad), *named)


def test_updates_out_of_range(llama: Family, bad: Path, out: Path):
    _each(lambda factor: factor * 1e25)(bad)
    recipe, named = _recipe(llama, bad), [str(bad), ".self_attn.", "out of the range of float32"]
    _assert_refused(recipe, out, *named)
    for command in ("adapter", "inspect"):
        _assert_refused_by(command, recipe, out, *named)


UNUSUAL: dict[str, Callable[[dict[str, torch.Tensor], Path], None]] = {
    "parameters": lambda tensors, path: torch.save(
        {key: torch.nn.Parameter(tensor) for key, tensor in tensors.items()}, path
    ),
    "the format before PyTorch 1.6": partial(torch.save, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_pickles_that_are_read(kind: str, llama: Family, good: Path, bad: Path, out: Path):
    tensors = load_file(bad / "adapter_model.safetensors")
    _remove_weights(bad)
    UNUSUAL[kind](tensors, bad / "adapter_model.bin")
    merged = mergekit_yaml(_recipe(llama, bad), out)
    wanted = mergekit_yaml(_recipe(llama, good), out.parent / "wanted")
    assert_same(merged / "model.safetensors", wanted / "model.safetensors")
    for command in ("check", "adapter", "inspect"):
        result = _run(command, _recipe(llama, bad), out.parent)
        assert result.exit_code == 0, result.output


def assert_same(file: Path, other: Path) -> None:
    one, two = load_file(file), load_file(other)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("path", ["/no/such/adapter", "no/such-adapter", "not a path"])
def test_a_path_that_does_not_exist(
    path: str, llama: Family, out: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _assert_refused(_recipe(llama, path), out, f"Adapter {path} not found: it is not a folder")


def test_a_whole_model_in_an_adapters_place(llama: Family, out: Path):
    told = [f"Adapter {llama.tuned[0]} has no adapter_config.json", "without a base and `+`"]
    _assert_refused(_recipe(llama, llama.tuned[0]), out, *told)


def test_of_another_architecture(llama: Family, tmp_path: Path, out: Path):
    other = write_adapter(tmp_path / "other", checkpoints.bert(), 1, ["query"])
    told = "it changes 2 weights, of which the base has 0 and lacks 2"
    _assert_refused(_recipe(llama, other), out, str(other), str(llama.base), told, "layer.0.")


@pytest.mark.parametrize(
    ("model", "targets", "named"),
    [
        (checkpoints.llava, r".*language_model.*q_proj", "language_model.model.layers.0"),
        (checkpoints.gemma3, r".*language_model.*q_proj", "language_model.model.layers.0"),
        (checkpoints.vit, r".*attention.q_proj", "vit.encoder.layer.0.attention"),
    ],
)
def test_of_models_that_mergekit_loses_tensors_of(
    model: Callable[[], PreTrainedModel], targets: str, named: str, tmp_path: Path, out: Path
):
    base = model()
    base.save_pretrained(tmp_path / "base")
    family = Family(tmp_path / "base", ())
    adapter = write_adapter(tmp_path / "adapter", base, 1, targets)
    told = [str(adapter), "layers.0.", named, "mergekit", "leaves such tensors out"]
    _assert_refused(_recipe(family, adapter), out, *told)
    _assert_refused_by("check", _recipe(family, adapter), out, *told)


def test_of_more_layers(llama: Family, tmp_path: Path, out: Path):
    deeper = checkpoints.llama(num_hidden_layers=5)
    adapter = write_adapter(tmp_path / "deeper", deeper, 1, TARGETS)
    told = "it changes 10 weights, of which the base has 6 and lacks 4"
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
    _assert_refused(
        _recipe(llama, bad), out, str(bad), str(llama.base), "changes none of the base's weights"
    )


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
    with pytest.raises(AssertionError, match="has only one factor of"):
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


def _run(command: str, recipe: dict[str, Any], folder: Path) -> Result:
    """Run one of our commands on a recipe; what it writes goes to a folder of its name."""
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump(recipe))
    out = str(folder / command)
    target = {"check": [], "adapter": [out], "inspect": ["--out", out]}[command]
    return CliRunner().invoke(main, [command, str(path), *target])


def _assert_refused_by(command: str, recipe: dict[str, Any], out: Path, *named: str) -> None:
    result = _run(command, recipe, out.parent)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    # Lines are as wide as the terminal.
    for part in named:
        assert "".join(part.split()) in "".join(result.output.split())
    assert not list((out.parent / command).glob("adapter_*"))
    assert not (out.parent / command / "index.html").exists()
