"""Adapters that are not added products go mergekit's way, if they may, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support import checkpoints
from support.by_peft import merged_by_peft
from support.checkpoints import Family, write_adapter
from support.command import mergekit_yaml, try_mergekit_yaml
from support.expected import assert_weights_merged

TARGETS = ["q_proj", "v_proj"]
OTHERS: dict[str, peft.PeftConfig] = {
    "DoRA": peft.LoraConfig(target_modules=TARGETS, use_dora=True, init_lora_weights=False),
    "peft's LOHA": peft.LoHaConfig(target_modules=TARGETS, init_weights=False),
    "peft's LOKR": peft.LoKrConfig(target_modules=TARGETS, init_weights=False),
    "peft's IA3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "peft's VERA": peft.VeraConfig(target_modules=["q_proj"], init_weights=False),
    "peft's ADALORA": peft.AdaLoraConfig(target_modules=TARGETS, total_step=10),
    "pissa": peft.LoraConfig(target_modules=TARGETS, init_lora_weights="pissa"),
    "trainable tokens": peft.LoraConfig(target_modules=TARGETS, trainable_token_indices=[1, 5]),
}


@pytest.fixture(scope="module", params=OTHERS)
def other(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """What makes an adapter another kind, and one of it."""
    folder = tmp_path_factory.mktemp("other")
    return request.param, _written(folder, OTHERS[request.param])


def test_refused_where_there_is_no_place_for_a_copy(
    other: tuple[str, Path], llama: Family, out: Path
):
    what, adapter = other
    result = try_mergekit_yaml(_recipe(llama, adapter), out)
    assert result.exit_code == 1
    (sentence,) = result.output.strip().splitlines()[-1:]
    assert sentence.startswith(f"Error: Adapter {adapter} uses ")
    assert what in sentence
    assert "--lora-merge-cache" in sentence
    assert not out.exists()


def test_merged_through_a_copy_with_a_warning(
    other: tuple[str, Path],
    llama: Family,
    tmp_path: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
):
    """Beside a LoRA input, of which no copy is made."""
    what, adapter = other
    lora = write_adapter(tmp_path / "lora", checkpoints.llama(), 3, TARGETS)
    copies = tmp_path / "copies"
    recipe = _recipe(llama, adapter, lora)
    mergekit_yaml(recipe, out, "--lora-merge-cache", str(copies))
    (warning,) = [r.getMessage() for r in caplog.records if str(adapter) in r.getMessage()]
    assert what in warning
    assert "merged through a full copy" in warning
    (copy,) = copies.iterdir()
    inputs = [checkpoints.tensors(copy), merged_by_peft(llama.base, lora)]
    base = checkpoints.tensors(llama.base)
    assert_weights_merged(checkpoints.tensors(out), base, inputs, "drm")


def test_prompts_cannot_be_merged_at_all(llama: Family, tmp_path: Path, out: Path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapter = _written(tmp_path / "prompt", config)
    recipe = _recipe(llama, adapter)
    result = try_mergekit_yaml(recipe, out, "--lora-merge-cache", str(tmp_path / "copies"))
    assert result.exit_code == 1
    assert f"Error: Adapter {adapter} is of peft's type PROMPT_TUNING" in result.output
    assert not (tmp_path / "copies").exists()


def test_other_methods_go_mergekits_way(llama: Family, tmp_path: Path, out: Path):
    """A recipe of another method is none of our business."""
    lora = write_adapter(tmp_path / "lora", checkpoints.llama(), 3, TARGETS)
    recipe = _recipe(llama, lora) | {"merge_method": "task_arithmetic"}
    assert "Need to specify cache dir" in str(try_mergekit_yaml(recipe, out).exception)
    mergekit_yaml(recipe, out, "--lora-merge-cache", str(tmp_path / "copies"))
    assert len(list((tmp_path / "copies").iterdir())) == 1


def _recipe(llama: Family, *adapters: Path) -> dict[str, Any]:
    return {
        "merge_method": "drm",
        "base_model": str(llama.base),
        "models": [{"model": f"{llama.base}+{adapter}"} for adapter in adapters],
        "parameters": {"weight": 1.0},
    }


def _written(folder: Path, config: peft.PeftConfig) -> Path:
    """Save an adapter of any of peft's types, trained a little."""
    model = checkpoints.llama()
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.02 * torch.randn_like(weight))
    adapted.save_pretrained(folder)
    return folder
