"""What is known about the models of the Hub that recipes name.

`benchmarks/recipes.py` makes models without contents from it, and the tests small stand-ins. The
Hub was not read for it: each recipe's head says what was reported about its models, and what was
not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers

from benchmarks.llama import LINEAR

_LAYERS: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        rank: of all updates.
        targets: names of the layers that it changes; all linear ones if it is not known which.
        task_type: peft's.
    """

    rank: int
    targets: tuple[str, ...] = LINEAR
    task_type: str = "CAUSAL_LM"


ADAPTERS = {
    "Lots-of-LoRAs/Mistral-7B-Instruct-v0.2-4b-r16-": Adapter(16),
    "hoffman-lab/KnOTS-Llama3_8B_lora_R16_": Adapter(16, ATTENTION, "SEQ_CLS"),
    "tomg-group-umd/LoRI-D_": Adapter(32),
    "yophis/DRM-Llama-3.1-8B-": Adapter(16, ("q_proj", "k_proj", "v_proj"), "SEQ_CLS"),
}
"""Adapters, by how their names start."""

NEW_TOKENS = {
    "teknium/OpenHermes-2.5-Mistral-7B": ("<|im_end|>", "<|im_start|>"),
    "meta-math/MetaMath-Mistral-7B": ("[PAD]",),
}
"""Tokens that a fine-tune has and its base does not have; its embeddings have a row for each."""


def adapter(hub_id: str) -> Adapter:
    """Return what is known about an adapter."""
    (found,) = (each for start, each in ADAPTERS.items() if hub_id.startswith(start))
    return found


def configuration(base: str) -> transformers.PretrainedConfig:
    """Return the sizes of a base model, which are those of its fine-tunes too."""
    if "Llama-3" in base:
        return transformers.LlamaConfig(
            **_LAYERS, vocab_size=128256, architectures=["LlamaForCausalLM"]
        )
    assert "Mistral-7B" in base, base
    return transformers.MistralConfig(
        **_LAYERS, vocab_size=32000, architectures=["MistralForCausalLM"]
    )
