"""Adapters and their bases in every form of file, and no file written but the merge's own."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from safetensors.torch import load, load_file, save_file
from support import checkpoints, hub
from support.by_peft import merged_by_peft
from support.checkpoints import Family, write_adapter
from support.command import mergekit_yaml
from support.expected import assert_weights_merged, with_adapter
from support.recipe_builders import METHODS

TARGETS = ("q_proj", "v_proj", "down_proj")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two adapters on the Llama."""
    folder, base = tmp_path_factory.mktemp("pair"), checkpoints.llama()
    one, two = (write_adapter(folder / str(s), base, s, TARGETS, rank=s + 2) for s in (1, 2))
    return one, two


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_written_but_the_merge(
    method: str,
    llama: Family,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Not beside the inputs, not in the working or temporary folder, not in one for copies."""
    before = {path: path.stat().st_mtime_ns for path in llama.base.parent.rglob("*")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copies = ["--lora-merge-cache", str(tmp_path / "copies")]
    mergekit_yaml(_recipe(method, llama.base, pair), tmp_path / "out", *copies)
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["model.safetensors"]
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.yml"}
    assert {path: path.stat().st_mtime_ns for path in llama.base.parent.rglob("*")} == before


def test_every_weight_of_the_base_is_read_once(
    llama: Family, pair: tuple[Path, Path], out: Path, monkeypatch: pytest.MonkeyPatch
):
    """However many adapters are on it."""
    reads: Counter[str] = Counter()
    read = LazyTensorLoader.get_tensor

    def counted(loader: LazyTensorLoader, key: str, *args: Any, **options: Any) -> Any:
        reads[key] += 1
        return read(loader, key, *args, **options)

    monkeypatch.setattr(LazyTensorLoader, "get_tensor", counted)
    mergekit_yaml(_recipe("drm", llama.base, pair), out)
    assert reads == Counter(load_file(llama.base / "model.safetensors").keys())


@pytest.mark.parametrize("options", [("--read-to-gpu", "--low-cpu-memory"), ("--async-write",)])
def test_mergekits_options_for_memory(
    options: tuple[str, ...], llama: Family, pair: tuple[Path, Path], out: Path
):
    """On the processor, where they change the order of things and not their place."""
    mergekit_yaml(_recipe("drm", llama.base, pair), out, *options, "--device", "cpu")
    _assert_merged(out, llama.base, pair)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_bases_in_half_precision(dtype: torch.dtype, tmp_path: Path, out: Path):
    model, base = checkpoints.llama().to(dtype), tmp_path / "base"
    model.save_pretrained(base)
    pair = [write_adapter(tmp_path / str(seed), model, seed, TARGETS) for seed in (1, 2)]
    mergekit_yaml(_recipe("drm", base, pair), out)
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {dtype}
    _assert_merged(out, base, pair)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_factors_in_half_precision(
    dtype: torch.dtype, llama: Family, pair: tuple[Path, ...], tmp_path: Path, out: Path
):
    """As many trainers save them. They count as the exact numbers that they are."""
    pair = tuple(_rewritten(adapter, tmp_path / adapter.name, dtype=dtype) for adapter in pair)
    mergekit_yaml(_recipe("drm", llama.base, pair), out)
    _assert_merged(out, llama.base, pair)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_rounds_the_base_and_not_the_update(
    method: str, dtype: str, llama: Family, pair: tuple[Path, Path], out: Path
):
    mergekit_yaml(_recipe(method, llama.base, pair) | {"dtype": dtype}, out)
    exact = checkpoints.tensors(llama.base)
    rounded = {name: weight.to(getattr(torch, dtype)) for name, weight in exact.items()}
    tuned = [
        {name: rounded[name].double() + (weight - exact[name]) for name, weight in merged.items()}
        for merged in (merged_by_peft(llama.base, adapter) for adapter in pair)
    ]
    assert_weights_merged(checkpoints.tensors(out), rounded, tuned, method)


def test_a_sharded_base(pair: tuple[Path, Path], tmp_path: Path, out: Path):
    checkpoints.llama().save_pretrained(tmp_path / "base", max_shard_size="20KB")
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 2
    mergekit_yaml(_recipe("drm", tmp_path / "base", pair), out)
    _assert_merged(out, tmp_path / "base", pair)


@pytest.mark.parametrize("options", [(), ("--lazy-unpickle",)], ids=str)
def test_a_base_in_bin(
    options: tuple[str, ...], llama: Family, pair: tuple[Path, Path], tmp_path: Path, out: Path
):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text((llama.base / "config.json").read_text())
    torch.save(load_file(llama.base / "model.safetensors"), base / "pytorch_model.bin")
    mergekit_yaml(_recipe("drm", base, pair), out, *options)
    _assert_merged(out, llama.base, pair)


def test_adapters_in_bin(llama: Family, pair: tuple[Path, Path], tmp_path: Path, out: Path):
    mergekit_yaml(
        _recipe("drm", llama.base, [_rewritten(a, tmp_path / a.name, in_bin=True) for a in pair]),
        out,
    )
    _assert_merged(out, llama.base, pair)


def test_a_base_whose_files_lack_the_models_name(tmp_path: Path, out: Path):
    """GPT-2 on the hub has `h.0.…` where the model, and so the adapter, has `transformer.h.0.…`."""
    model, base = checkpoints.gpt2(), tmp_path / "base"
    model.save_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", model, 1, ["c_attn", "c_proj"])
    merged = mergekit_yaml(_recipe("drm", base, [adapter]), tmp_path / "with")
    _without_prefix(base, "transformer.")
    mergekit_yaml(_recipe("drm", base, [adapter]), out)
    wanted = load_file(merged / "model.safetensors")
    for name, tensor in load_file(out / "model.safetensors").items():
        assert torch.equal(tensor, wanted[name]), name


def test_an_adapter_trained_on_the_bare_model(tmp_path: Path, out: Path):
    """It has `encoder.layer.0.…` where the classifier's files have `bert.encoder.layer.0.…`."""
    model, base = checkpoints.bert(), tmp_path / "base"
    model.save_pretrained(base)
    whole = write_adapter(tmp_path / "whole", model, 1, ["query", "value"])
    bare = write_adapter(tmp_path / "bare", model.bert, 1, ["query", "value"])
    wanted = mergekit_yaml(_recipe("drm", base, [whole]), tmp_path / "wanted")
    mergekit_yaml(_recipe("drm", base, [bare]), out)
    for name, tensor in load_file(wanted / "model.safetensors").items():
        assert torch.equal(tensor, load_file(out / "model.safetensors")[name]), name


def test_a_hub_id_with_a_revision(
    llama: Family,
    pair: tuple[Path, Path],
    tmp_path: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Two revisions of one repository; a branch's name and a commit both name one."""
    cache = tmp_path / "hub"
    hub.store(cache, "someone/lora", "main", pair[0])
    commit = hub.store(cache, "someone/lora", "second", pair[1])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for revision in ("second", commit):
        recipe = _recipe("drm", llama.base, ["someone/lora", f"someone/lora@{revision}"])
        mergekit_yaml(recipe, out, "--transformers-cache", str(cache))
        _assert_merged(out, llama.base, pair)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
        mergekit_yaml(recipe, out)
        _assert_merged(out, llama.base, pair)


def test_a_base_that_is_not_the_one_trained_on_is_warned_of(
    llama: Family,
    pair: tuple[Path, Path],
    tmp_path: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
):
    renamed = _rewritten(pair[0], tmp_path / "renamed")
    config = json.loads((renamed / "adapter_config.json").read_text())
    for trained_on, warned in [("org/BASE", False), ("org/other", True), (None, False)]:
        caplog.clear()
        changed = json.dumps(config | {"base_model_name_or_path": trained_on})
        (renamed / "adapter_config.json").write_text(changed)
        mergekit_yaml(_recipe("drm", llama.base, [renamed]), out)
        told = [r.getMessage() for r in caplog.records if "was trained on" in r.getMessage()]
        sentence = f"Adapter {renamed} was trained on org/other, but its base here is "
        assert told == ([f"{sentence}{llama.base}."] if warned else [])


def test_a_head_that_the_base_has_not_is_left_out(
    llama: Family, tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
):
    """A classifier trained on a language model's layers."""
    classifier = checkpoints.llama_classifier()
    adapter = write_adapter(tmp_path / "a", classifier, 1, TARGETS, task_type="SEQ_CLS")
    mergekit_yaml(_recipe("drm", llama.base, [adapter]), out)
    assert f"Adapter {adapter} contains score.weight, not found in {llama.base}" in caplog.text
    base = checkpoints.tensors(llama.base)
    assert_weights_merged(checkpoints.tensors(out), base, [with_adapter(base, adapter)], "drm")


def _recipe(method: str, base: Path, adapters: Any) -> dict[str, Any]:
    return {
        "merge_method": method,
        "base_model": str(base),
        "models": [{"model": f"{base}+{adapter}"} for adapter in adapters],
    }


def _assert_merged(out: Path, base: Path, adapters: Any) -> None:
    tuned = [merged_by_peft(base, adapter) for adapter in adapters]
    assert_weights_merged(checkpoints.tensors(out), checkpoints.tensors(base), tuned, "drm")


def _rewritten(
    adapter: Path, folder: Path, dtype: torch.dtype | None = None, in_bin: bool = False
) -> Path:
    """Copy an adapter, its factors in `dtype`, or in a file as older versions of peft wrote."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    factors = load_file(adapter / "adapter_model.safetensors")
    factors = {key: tensor.to(dtype or tensor.dtype) for key, tensor in factors.items()}
    if in_bin:
        torch.save(factors, folder / "adapter_model.bin")
    else:
        save_file(factors, folder / "adapter_model.safetensors")
    return folder


def _without_prefix(folder: Path, prefix: str) -> None:
    path = folder / "model.safetensors"
    weights = load(path.read_bytes())
    weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    save_file(weights, path, metadata={"format": "pt"})
