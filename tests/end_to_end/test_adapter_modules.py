"""`mergekit-spectral adapter` on modules of every kind: peft loads all of it, and it does the same.

The judge is the model with the adapter on it, not peft's merge of the two: that adds the updates of
two tied modules to the one weight that they share.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file
from support import checkpoints
from support.by_peft import logits, logits_by_peft
from support.command import mergekit_yaml
from transformers import PreTrainedModel

from mergekit_spectral.command_line.main import main

Build = Callable[..., PreTrainedModel]
LLAMA = ["q_proj", "embed_tokens", "lm_head"]
GPT2 = ["c_attn", "c_fc", "c_proj", "wte", "wpe", "lm_head"]


def write(
    folder: Path, base: PreTrainedModel, targets: list[str], embeddings: str, **config: Any
) -> dict[str, Any]:
    """Save a base and two adapters on it; return a recipe."""
    base.save_pretrained(folder / "base")
    for seed in (1, 2):
        checkpoints.write_adapter(folder / str(seed), base, seed, targets, **config)
    return {
        "merge_method": "drm",
        "base_model": str(folder / "base"),
        "models": [{"model": f"{folder / 'base'}+{folder / str(seed)}"} for seed in (1, 2)],
        "parameters": {"embeddings": embeddings},
    }


def merge(recipe: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    path = out.parent / "adapter.yml"
    path.write_text(yaml.safe_dump(recipe))
    result = CliRunner().invoke(main, ["adapter", str(path), str(out)])
    assert result.exit_code == 0, result.output
    return load_file(out / "adapter_model.safetensors")


def loaded(base: Path, adapter: Path) -> peft.PeftModel:
    config = transformers.AutoConfig.from_pretrained(base)
    model = getattr(transformers, config.architectures[0]).from_pretrained(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        return peft.PeftModel.from_pretrained(model, adapter)


@pytest.mark.parametrize("embeddings", ["spectral", "elementwise"])
@pytest.mark.parametrize(
    ("build", "targets"),
    [(checkpoints.llama, ["lm_head"]), (checkpoints.llama, LLAMA), (checkpoints.gpt2, GPT2)],
    ids=["lm_head", "llama", "gpt2"],
)
@pytest.mark.parametrize("tied", [False, True])
def test_every_module_that_an_adapter_changes(
    tied: bool, build: Build, targets: list[str], embeddings: str, out: Path
):
    base = build(tie_word_embeddings=tied)
    # Of full rank, so that nothing is lost of what is merged elementwise.
    recipe = write(out.parent, base, targets, embeddings, rank=16)
    tensors = merge(recipe, out)
    assert any("lm_head.lora_A.weight" in key for key in tensors)
    assert not any("lm_head.lora_embedding" in key for key in tensors)
    loaded(out.parent / "base", out)
    full = mergekit_yaml(recipe, out.parent / "full")
    if tied:
        # A tied checkpoint cannot hold a head of its own, so the full merge is untied.
        untied(full)
    plain, merged = logits(out.parent / "base"), logits(full)
    by_peft = logits_by_peft(out.parent / "base", out)
    assert (by_peft - merged).norm() < 1e-5 * (merged - plain).norm()


def untied(folder: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    config.save_pretrained(folder)


def test_the_head_has_the_update_of_the_full_merge(out: Path):
    recipe = write(out.parent, checkpoints.llama(), ["q_proj", "lm_head"], "spectral")
    merge(recipe, out)
    before = load_file(out.parent / "base" / "model.safetensors")["lm_head.weight"]
    full = load_file(mergekit_yaml(recipe, out.parent / "full") / "model.safetensors")
    expected = full["lm_head.weight"] - before
    by_peft = loaded(out.parent / "base", out).merge_and_unload().state_dict()["lm_head.weight"]
    assert (by_peft - before - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("build", "targets", "task_type"),
    [
        (checkpoints.bert, ["query", "word_embeddings", "position_embeddings"], "SEQ_CLS"),
        (checkpoints.t5, ["q", "relative_attention_bias"], "SEQ_2_SEQ_LM"),
    ],
)
def test_other_architectures(build: Build, targets: list[str], task_type: str, out: Path):
    """Embeddings of positions are embeddings too, though they have no axis of tokens."""
    recipe = write(out.parent, build(), targets, "spectral", task_type=task_type)
    merge(recipe, out)
    changed = loaded(out.parent / "base", out).merge_and_unload().state_dict()
    before = checkpoints.tensors(out.parent / "base")
    full = checkpoints.tensors(mergekit_yaml(recipe, out.parent / "full"))
    for name, weight in full.items():
        if name.startswith("classifier"):
            continue  # a head is left out, and said to be
        expected = weight - before[name]
        assert (changed[name] - weight).norm() <= 1e-5 * expected.norm(), name
