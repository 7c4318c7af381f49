"""A merged model that lacks weights: an error of `check`, and a warning of the merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.options import MergeOptions
from safetensors.torch import load, load_file
from support import checkpoints
from support.command import mergekit_yaml
from support.recipe_builders import recipe
from transformers import DeepseekV3ForCausalLM, LlamaConfig, PreTrainedModel

from mergekit_spectral.checking.checks import check
from mergekit_spectral.host.unread_weights import find_unread_weights

OPTIONS = MergeOptions(copy_tokenizer=False)
WEIGHT = ((2, 2), torch.float32)


@pytest.mark.parametrize(
    ("build", "first"),
    [
        (checkpoints.llava, "language_model.lm_head.weight"),
        (checkpoints.vit, "vit.encoder.layer.0.attention.attention.key.bias"),
    ],
)
def test_most_of_a_model_is_missed(
    build: Callable[[], PreTrainedModel],
    first: str,
    tmp_path: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
):
    family = checkpoints.write_family(tmp_path, build(), count=2)
    wrong = recipe("drm", family)
    mergekit_yaml(wrong, out)
    stored, merged = (load_file(path / "model.safetensors") for path in (family.base, out))
    assert len(stored) > 1.4 * len(merged)
    said = f"lacks {len(stored) - len(merged)} of the {len(stored)} tensors of {family.base}, the "
    said += f"first are {first}"
    assert [message for message in caplog.messages if said in message]
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(wrong))
    (told,) = check(tmp_path / "recipe.yml", tmp_path, OPTIONS).findings
    assert told.severity == "error"
    assert said in told.message


def test_a_base_without_all_that_it_had(tmp_path: Path):
    """Where the base alone has a tensor, the merged model needs it all the same."""
    family = checkpoints.write_family(tmp_path, checkpoints.opt(), count=1)
    more = {**load((family.base / "model.safetensors").read_bytes()), "extra.weight": torch.ones(3)}
    checkpoints.write_tensors(family.base, more)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe("drm", family)))
    (told,) = check(tmp_path / "recipe.yml", tmp_path, OPTIONS).findings
    assert told.severity == "error"
    assert "lacks 1 of the 37 tensors" in told.message


@pytest.mark.parametrize("build", [checkpoints.mixtral, checkpoints.gpt2, checkpoints.t5])
def test_merges_that_have_all(
    build: Callable[[], PreTrainedModel],
    tmp_path: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
):
    """Stacked experts, buffers and tied weights are not missed."""
    family = checkpoints.write_family(tmp_path, build(), count=1)
    mergekit_yaml(recipe("drm", family), out)
    assert not [message for message in caplog.messages if "lacks" in message]


def test_what_nobody_misses():
    config = LlamaConfig(architectures=["LlamaForCausalLM"], tie_word_embeddings=True)
    names = ["model.layers.0.self_attn.rotary_emb.inv_freq", "lm_head.weight"]
    headers = {**dict.fromkeys(names, WEIGHT), "position_ids": ((1, 8), torch.int64)}
    assert find_unread_weights(headers, set(), config, some_layers=False).needed == []
    config.tie_word_embeddings = False
    assert find_unread_weights(headers, set(), config, some_layers=False).needed == [
        "lm_head.weight"
    ]


def test_layers_that_slices_leave_out():
    config = LlamaConfig(architectures=["LlamaForCausalLM"])
    headers = {f"model.layers.{n}.mlp.up_proj.weight": WEIGHT for n in range(3)}
    read = {"model.layers.0.mlp.up_proj.weight"}
    assert find_unread_weights(headers, read, config, some_layers=True).needed == ()
    assert len(find_unread_weights(headers, read, config, some_layers=False).needed) == 2


def test_layers_that_transformers_does_not_load():
    """Such as those of multi-token prediction."""
    config = DeepseekV3ForCausalLM.config_class(architectures=["DeepseekV3ForCausalLM"])
    headers = {"model.layers.61.enorm.weight": WEIGHT}
    found = find_unread_weights(headers, set(), config, some_layers=False)
    assert (found.needed, found.ignored) == ([], ["model.layers.61.enorm.weight"])
