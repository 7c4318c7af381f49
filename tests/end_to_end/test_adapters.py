"""LoRA adapters, written `base+adapter` in a recipe: on which bases, and beside what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support import checkpoints
from support.by_peft import merged_by_peft
from support.checkpoints import Family, write_adapter
from support.command import mergekit_multi, mergekit_yaml, try_mergekit_yaml
from support.expected import Weights, assert_weights_merged
from support.recipe_builders import METHODS

ATTENTION = ("q_proj", "v_proj", "o_proj")
MLP = ("up_proj", "down_proj")


@pytest.fixture(scope="module")
def adapters(llama: Family, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three adapters on the Llama; not all of them change the same weights."""
    folder = tmp_path_factory.mktemp("adapters")
    base = checkpoints.llama()
    return tuple(
        write_adapter(folder / str(seed), base, seed, targets, rank)
        for seed, (targets, rank) in enumerate([(ATTENTION, 4), (ATTENTION, 8), (MLP, 4)], start=1)
    )


@pytest.mark.parametrize("method", METHODS)
def test_ranks_and_targets_that_differ(
    method: str, llama: Family, adapters: tuple[Path, ...], out: Path
):
    mergekit_yaml(_recipe(method, llama.base, _on(llama.base, adapters)), out)
    _assert_merged(out, llama.base, [merged_by_peft(llama.base, a) for a in adapters], method)


@pytest.mark.parametrize("method", METHODS)
def test_beside_a_full_fine_tune(method: str, llama: Family, adapters: tuple[Path, ...], out: Path):
    models = [*_on(llama.base, adapters[:2]), llama.tuned[0]]
    mergekit_yaml(_recipe(method, llama.base, models), out)
    tuned = [merged_by_peft(llama.base, a) for a in adapters[:2]]
    _assert_merged(out, llama.base, [*tuned, checkpoints.tensors(llama.tuned[0])], method)


@pytest.mark.parametrize("method", METHODS)
def test_on_another_base_than_the_recipes(
    method: str, llama: Family, adapters: tuple[Path, ...], out: Path
):
    models = [*_on(llama.tuned[0], adapters[:1]), *_on(llama.base, adapters[1:])]
    mergekit_yaml(_recipe(method, llama.base, models), out)
    tuned = [merged_by_peft(llama.tuned[0], adapters[0])]
    tuned += [merged_by_peft(llama.base, a) for a in adapters[1:]]
    _assert_merged(out, llama.base, tuned, method)


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_on_two_bases(
    method: str, llama: Family, adapters: tuple[Path, ...], out: Path
):
    bases = (llama.base, llama.tuned[1])
    models = [reference for base in bases for reference in _on(base, adapters[:1])]
    mergekit_yaml(_recipe(method, llama.base, models), out)
    _assert_merged(out, llama.base, [merged_by_peft(b, adapters[0]) for b in bases], method)


@pytest.mark.parametrize("method", METHODS)
def test_before_training_an_adapter_changes_nothing(method: str, llama: Family, out: Path):
    untrained = _untrained(out.parent / "untrained")
    mergekit_yaml(_recipe(method, llama.base, _on(llama.base, [untrained])), out)
    base = checkpoints.tensors(llama.base)
    for name, tensor in checkpoints.tensors(out).items():
        assert torch.equal(tensor, base[name]), name


def test_an_adapter_before_training_has_no_vote_in_knots(
    llama: Family, adapters: tuple[Path, ...], out: Path
):
    untrained = _untrained(out.parent / "untrained")
    models = _on(llama.base, [adapters[0], untrained, adapters[1]])
    mergekit_yaml(_recipe("knots_ties", llama.base, models), out)
    _assert_merged(
        out, llama.base, [merged_by_peft(llama.base, a) for a in adapters[:2]], "knots_ties"
    )


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_per_input(method: str, llama: Family, adapters: tuple[Path, ...], out: Path):
    recipe = _recipe(method, llama.base, _on(llama.base, adapters))
    for number, model in enumerate(recipe["models"], start=1):
        model["parameters"] = {"weight": number}
    mergekit_yaml(recipe, out)
    tuned = [merged_by_peft(llama.base, a) for a in adapters]
    _assert_merged(out, llama.base, tuned, method, {"weights": [1.0, 2.0, 3.0]})


def test_spectral_embeddings(llama: Family, out: Path):
    targets = ["q_proj", "embed_tokens", "lm_head"]
    pair = [write_adapter(out.parent / str(s), checkpoints.llama(), s, targets) for s in (1, 2)]
    recipe = _recipe("drm", llama.base, _on(llama.base, pair))
    mergekit_yaml(recipe | {"parameters": {"embeddings": "spectral"}}, out)
    tuned = [merged_by_peft(llama.base, a) for a in pair]
    _assert_merged(out, llama.base, tuned, "drm", {"embeddings": "spectral"})


def test_slices(llama: Family, adapters: tuple[Path, ...], out: Path):
    """The layers in another order, two of them from adapted models."""
    models = [*_on(llama.base, adapters[:2]), str(llama.base)]
    order = [2, 0, 2]
    slices = [
        {"sources": [{"model": model, "layer_range": [n, n + 1]} for model in models]}
        for n in order
    ]
    mergekit_yaml({"merge_method": "drm", "base_model": str(llama.base), "slices": slices}, out)
    tuned = [merged_by_peft(llama.base, adapter) for adapter in adapters[:2]]
    base, *tuned = (_stacked(w, order) for w in (checkpoints.tensors(llama.base), *tuned))
    assert_weights_merged(checkpoints.tensors(out), base, tuned, "drm")


@pytest.mark.parametrize("source", ["union", "base"])
def test_tokenizers_are_those_of_the_bases(source: str, out: Path):
    model, folder = checkpoints.llama(), out.parent / "base"
    model.save_pretrained(folder)
    checkpoints.write_tokenizer(folder)
    pair = [
        write_adapter(out.parent / str(seed), model, seed, targets)
        for seed, targets in enumerate([("q_proj",), ("q_proj", "embed_tokens")])
    ]
    recipe = _recipe("drm", folder, _on(folder, pair)) | {"tokenizer_source": source}
    mergekit_yaml(recipe, out)
    assert (out / "tokenizer.json").is_file()
    _assert_merged(out, folder, [merged_by_peft(folder, adapter) for adapter in pair], "drm")


def test_a_tokenizer_with_more_tokens_beside_an_adapter(out: Path):
    model, base, chat = checkpoints.llama(), out.parent / "base", out.parent / "chat"
    model.save_pretrained(base)
    checkpoints.write_tokenizer(base)
    checkpoints.write_enlarged(chat, checkpoints.fine_tuned(model, 1), "<|im_end|>")
    adapter = write_adapter(out.parent / "adapter", model, 1, ATTENTION)
    recipe = _recipe("drm", base, [*_on(base, [adapter]), chat]) | {"tokenizer_source": "union"}
    mergekit_yaml(recipe, out)
    # What an input has no token for comes from the one that has it.
    start, adapted, tuned = (
        checkpoints.tensors(base),
        merged_by_peft(base, adapter),
        checkpoints.tensors(chat),
    )
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        for weights in (start, adapted):
            weights[name] = torch.cat([weights[name], tuned[name][-1:]])
    assert_weights_merged(checkpoints.tensors(out), start, [adapted, tuned], "drm")


@pytest.mark.parametrize("first", ["drm", "star"])
def test_multi_puts_an_adapter_on_a_merge(
    first: str, llama: Family, adapters: tuple[Path, ...], out: Path
):
    step = {"name": "step", **_recipe(first, llama.base, _on(llama.base, adapters[:2]))}
    last = _recipe("drm", "step", [f"step+{adapters[2]}", *_on(llama.base, adapters[:1])])
    mergekit_multi([step, last], out)
    middle = out.parent / "steps" / "step"
    _assert_merged(middle, llama.base, [merged_by_peft(llama.base, a) for a in adapters[:2]], first)
    tuned = [merged_by_peft(middle, adapters[2]), merged_by_peft(llama.base, adapters[0])]
    _assert_merged(out, middle, tuned, "drm")


def test_a_base_model_that_is_an_adapter_on_a_model(
    llama: Family, adapters: tuple[Path, ...], out: Path
):
    """mergekit makes a merged copy of the base model; the inputs stay factored."""
    base_model, *models = _on(llama.base, adapters)
    recipe = _recipe("drm", base_model, [*models, llama.tuned[0]])
    refused = try_mergekit_yaml(recipe, out)
    assert f"Error: The base model {base_model} is itself an adapter" in refused.output
    assert "--lora-merge-cache" in refused.output

    copies = out.parent / "copies"
    mergekit_yaml(recipe, out, "--lora-merge-cache", str(copies))
    (copy,) = copies.iterdir()
    tuned = [merged_by_peft(llama.base, a) for a in adapters[1:]]
    _assert_merged(out, copy, [*tuned, checkpoints.tensors(llama.tuned[0])], "drm")


def _recipe(method: str, base: Path | str, models: list[Path | str]) -> dict[str, Any]:
    return {
        "merge_method": method,
        "base_model": str(base),
        "models": [{"model": str(model)} for model in models],
    }


def _on(base: Path, adapters: list[Path] | tuple[Path, ...]) -> list[Path | str]:
    return [f"{base}+{adapter}" for adapter in adapters]


def _untrained(folder: Path) -> Path:
    """An adapter as peft starts it, with B = 0."""
    config = peft.LoraConfig(target_modules=list(ATTENTION))
    peft.get_peft_model(checkpoints.llama(), config).save_pretrained(folder)
    return folder


def _assert_merged(
    out: Path,
    base: Path,
    tuned: list[Weights],
    method: str,
    parameters: dict[str, Any] | None = None,
) -> None:
    start = checkpoints.tensors(base)
    assert_weights_merged(checkpoints.tensors(out), start, tuned, method, parameters)


def _stacked(weights: Weights, layers: list[int]) -> Weights:
    """Give the model these layers, in this order, in place of its own."""
    stacked = {name: weights[name] for name in weights if "layers." not in name}
    for new, old in enumerate(layers):
        prefix = f"model.layers.{old}."
        for name in weights:
            if name.startswith(prefix):
                stacked[f"model.layers.{new}.{name.removeprefix(prefix)}"] = weights[name]
    return stacked
