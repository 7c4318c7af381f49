"""Every LoRA adapter that peft writes for linear layers and embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import relative_error
from safetensors.torch import load_file
from support import checkpoints
from support.by_peft import logits, logits_by_peft, merged_by_peft
from support.checkpoints import tensors, write_adapter
from support.command import mergekit_yaml
from support.expected import Weights, assert_close, assert_weights_merged
from transformers import PreTrainedModel

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")

OF_DECODERS: dict[str, dict[str, Any]] = {
    "plain": {"targets": ATTENTION},
    "another alpha": {"targets": ATTENTION, "lora_alpha": 48},
    "one target": {"targets": ["up_proj"], "rank": 8},
    "all linear layers": {"targets": "all-linear"},
    "targets by a pattern": {"targets": r".*\.(0|2)\.mlp\..*_proj"},
    "rank above a side": {"targets": ATTENTION, "rank": 20},
    "rslora": {"targets": ATTENTION, "use_rslora": True},
    "rank and alpha patterns": {
        "targets": ATTENTION,
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "v_proj": 6},
        "alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 3, "o_proj": 32},
    },
    "rslora with patterns": {
        "targets": ATTENTION,
        "use_rslora": True,
        "rank_pattern": {"v_proj": 9},
        "alpha_pattern": {"v_proj": 5},
    },
    "some layers": {"targets": ATTENTION, "layers_to_transform": [0, 2]},
    "all but some": {"targets": "all-linear", "exclude_modules": ["o_proj"]},
    "modules to save": {"targets": ATTENTION, "modules_to_save": ["lm_head", "embed_tokens"]},
    "a norm to save": {"targets": ATTENTION, "modules_to_save": ["input_layernorm"]},
    "embeddings": {"targets": ["q_proj", "embed_tokens"]},
    "the head": {"targets": ["q_proj", "lm_head"]},
    "orthogonal start": {"targets": ATTENTION, "init_lora_weights": "orthogonal"},
}

OF_OTHERS: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, Any]]] = {
    "lora bias": (checkpoints.qwen2, {"targets": ["q_proj", "v_proj"], "lora_bias": True}),
    "lora bias and rslora": (
        checkpoints.qwen2,
        {"targets": ["q_proj"], "lora_bias": True, "use_rslora": True, "lora_alpha": 3},
    ),
    "all biases": (checkpoints.qwen2, {"targets": ["q_proj", "v_proj"], "bias": "all"}),
    "biases of its layers": (checkpoints.qwen2, {"targets": ["q_proj"], "bias": "lora_only"}),
    "Conv1D": (
        checkpoints.gpt2,
        {"targets": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "Conv1D with biases": (checkpoints.gpt2, {"targets": ["c_attn"], "bias": "all"}),
    "Conv1D beside embeddings": (checkpoints.gpt2, {"targets": ["c_proj", "wpe"]}),
    "Conv1D beside a Linear head": (
        lambda: checkpoints.gpt2(tie_word_embeddings=False),
        {"targets": ["c_attn", "c_proj", "lm_head"]},
    ),
    "square Conv1D beside a Linear head": (
        lambda: checkpoints.gpt2(tie_word_embeddings=False),
        {"targets": r".*attn\.c_proj|lm_head"},
    ),
    "a classifier": (checkpoints.bert, {"targets": ["query", "value"], "task_type": "SEQ_CLS"}),
    "an adapted classifier": (checkpoints.bert, {"targets": ["query", "classifier"]}),
    "encoder and decoder": (checkpoints.t5, {"targets": ["q", "v", "wo"]}),
    "no definition of the architecture": (checkpoints.opt, {"targets": ["q_proj", "fc1"]}),
}

ALL_SQUARE = partial(checkpoints.llama, num_key_value_heads=4)

FLAGGED: dict[str, tuple[Callable[[], PreTrainedModel], list[str], bool]] = {
    "square Linear": (ALL_SQUARE, ["q_proj", "k_proj", "v_proj", "o_proj"], True),
    "square Linear among others": (checkpoints.llama, ["q_proj", "o_proj"], True),
    "square Conv1D": (checkpoints.gpt2, ["attn.c_proj"], False),
}
"""Adapters whose `fan_in_fan_out` somebody has set to what it is not."""

EXPERTS: dict[str, dict[str, Any]] = {
    "both": {"target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
    "one": {"target_parameters": ["mlp.experts.down_proj"], "rank": 3, "lora_alpha": 5},
    "rslora": {"target_parameters": ["experts.gate_up_proj"], "use_rslora": True},
    "patterns": {
        "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        "rank_pattern": {"experts.down_proj": 2},
        "alpha_pattern": {r"layers.\d+.mlp.experts.gate_up_proj": 3},
    },
    # 4 experts of rank 1 have as many rows as q_proj, of rank 4.
    "rows of a layer": {
        "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        "rank_pattern": {"experts.down_proj": 1},
    },
}

# Of experts that are stored as [in, out]. Square ones fit either way around.
TURNED: dict[str, tuple[Callable[[], PreTrainedModel], dict[str, Any]]] = {
    "gpt-oss": (checkpoints.gpt_oss, EXPERTS["patterns"]),
    "gpt-oss, gate_up_proj square": (
        partial(checkpoints.gpt_oss, intermediate_size=16),
        EXPERTS["both"],
    ),
    "gpt-oss, down_proj square": (
        partial(checkpoints.gpt_oss, intermediate_size=32),
        EXPERTS["rows of a layer"],
    ),
    "gpt-oss, one expert": (
        partial(
            checkpoints.gpt_oss, intermediate_size=16, num_local_experts=1, num_experts_per_tok=1
        ),
        {"target_parameters": ["experts.gate_up_proj"]},
    ),
    "gpt-oss, with biases": (
        checkpoints.gpt_oss,
        {"target_parameters": ["gate_up_proj", "experts.gate_up_proj_bias", "down_proj_bias"]},
    ),
    "Llama 4": (checkpoints.llama4, EXPERTS["both"]),
    "Llama 4, gate_up_proj square": (
        partial(checkpoints.llama4, intermediate_size=16),
        EXPERTS["rows of a layer"],
    ),
    "Llama 4, down_proj square": (
        partial(checkpoints.llama4, intermediate_size=32),
        EXPERTS["both"],
    ),
}

TIED: dict[str, dict[str, Any]] = {
    "nothing tied": {"targets": ATTENTION},
    "embeddings": {"targets": ["q_proj", "embed_tokens"]},
    "head": {"targets": ["q_proj", "lm_head"]},
    "both": {"targets": ["q_proj", "embed_tokens", "lm_head"]},
    "both as one": {
        "targets": ["q_proj", "embed_tokens", "lm_head"],
        "ensure_weight_tying": True,
    },
    "embeddings to save": {"targets": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "head to save": {"targets": ["q_proj"], "modules_to_save": ["lm_head"]},
}


@dataclass(frozen=True)
class Base:
    """A model, and the checkpoint that it is saved in."""

    model: PreTrainedModel
    path: Path

    @classmethod
    def saved(cls, model: PreTrainedModel, folder: Path) -> Base:
        model.save_pretrained(folder / "base")
        return cls(model, folder / "base")


@pytest.fixture(scope="module", params=[checkpoints.llama, checkpoints.mistral])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base.saved(request.param(), tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def plain(decoder: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """A plain adapter for every kind to be merged with, and what it makes of the base."""
    adapter = write_adapter(tmp_path_factory.mktemp("plain"), decoder.model, 0, ATTENTION)
    return adapter, merged_by_peft(decoder.path, adapter)


@pytest.mark.parametrize("kind", OF_DECODERS)
def test_of_llama_and_mistral(
    kind: str, decoder: Base, plain: tuple[Path, Weights], tmp_path: Path
):
    _check(tmp_path, decoder, OF_DECODERS[kind], plain)


@pytest.mark.parametrize("kind", OF_OTHERS)
def test_of_other_architectures(kind: str, tmp_path: Path):
    architecture, config = OF_OTHERS[kind]
    _check(tmp_path, Base.saved(architecture(), tmp_path), config)


@pytest.mark.parametrize("kind", FLAGGED)
def test_layers_go_by_their_class_not_by_the_flag(kind: str, tmp_path: Path):
    architecture, targets, flag = FLAGGED[kind]
    base = Base.saved(architecture(), tmp_path)
    adapter = write_adapter(tmp_path / "adapter", base.model, 1, targets)
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"fan_in_fan_out": flag}))
    _check_written(tmp_path, base, adapter)


@pytest.mark.parametrize("model", [checkpoints.mixtral, checkpoints.qwen3_moe])
@pytest.mark.parametrize("kind", EXPERTS)
def test_on_fused_experts(model: Callable[[], PreTrainedModel], kind: str, tmp_path: Path):
    base = Base.saved(model(), tmp_path)
    fused = write_adapter(tmp_path / "fused", base.model, 1, ["q_proj"], **EXPERTS[kind])
    plain = write_adapter(tmp_path / "plain", base.model, 2, ["q_proj"])
    recipe = _recipe("drm", base.path, fused, plain)
    out = mergekit_yaml(recipe, tmp_path / "out")
    tuned = [merged_by_peft(base.path, adapter) for adapter in (fused, plain)]
    assert_weights_merged(tensors(out), tensors(base.path), tuned, "drm")


@pytest.mark.parametrize("kind", TURNED)
def test_on_experts_stored_as_in_out(kind: str, tmp_path: Path):
    architecture, config = TURNED[kind]
    base = Base.saved(architecture(), tmp_path)
    targets = r".*layers\.\d\.self_attn\.q_proj"
    adapter = write_adapter(tmp_path / "adapter", base.model, 1, targets, **config)
    tuned = merged_by_peft(base.path, adapter)
    before = tensors(base.path)
    changed = [name for name in before if not torch.equal(tuned[name], before[name].double())]
    assert sum("experts" in name for name in changed) >= 2
    whole = _recipe("star", base.path, adapter) | {"parameters": {"eta": 100}}
    merged = tensors(mergekit_yaml(whole, tmp_path / "whole"))
    for name, weight in before.items():
        assert_close(name, merged[name], weight.double(), tuned[name] - weight.double())
    other = write_adapter(tmp_path / "other", base.model, 2, targets)
    inputs = [tuned, merged_by_peft(base.path, other)]
    out = mergekit_yaml(_recipe("drm", base.path, adapter, other), tmp_path / "out")
    assert_weights_merged(tensors(out), before, inputs, "drm")


@pytest.mark.parametrize("kind", TIED)
def test_on_tied_embeddings(kind: str, tmp_path: Path):
    """Judged by running the model: merging, peft adds to both what only one was trained with."""
    base = Base.saved(checkpoints.llama(tie_word_embeddings=True), tmp_path)
    adapter = write_adapter(tmp_path / "adapter", base.model, 1, **TIED[kind])
    whole = _recipe("star", base.path, adapter) | {"parameters": {"eta": 100}}
    out = mergekit_yaml(whole, tmp_path / "out")
    assert relative_error(logits(out), logits_by_peft(base.path, adapter)) < 1e-6


def _check(folder: Path, base: Base, config: dict[str, Any], *others: tuple[Path, Weights]) -> None:
    """Merge in float32; peft itself tells, in float64, what an adapter of this kind adds."""
    _check_written(
        folder, base, write_adapter(folder / "adapter", base.model, 1, **config), *others
    )


def _check_written(folder: Path, base: Base, adapter: Path, *others: tuple[Path, Weights]) -> None:
    inputs = [(adapter, merged_by_peft(base.path, adapter)), *others]
    recipe = _recipe("drm", base.path, *(adapter for adapter, _ in inputs))
    merged = load_file(mergekit_yaml(recipe, folder / "out") / "model.safetensors")
    tuned = [{name: weights[name] for name in merged} for _, weights in inputs]
    assert_weights_merged(merged, load_file(base.path / "model.safetensors"), tuned, "drm")


def _recipe(method: str, base: Path, *adapters: Path) -> dict[str, Any]:
    return {
        "merge_method": method,
        "base_model": str(base),
        "models": [{"model": f"{base}+{adapter}"} for adapter in adapters],
        "dtype": "float32",
    }
