"""A Llama as wide as Llama 8B, of few layers and a small vocabulary, and fine-tunes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from benchmarks.weights import UPDATE_STD, update

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def build(
    folder: Path, inputs: str, layers: int, width: int, count: int, rank: int, dtype: torch.dtype
) -> None:
    """Write base and inputs: folders `base` and `input-0` to `input-{count - 1}`."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    heads = max(1, width // 128)
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        vocab_size=512,
        max_position_embeddings=512,
    )
    base: Any = transformers.LlamaForCausalLM(config)
    base.to(dtype)
    base.save_pretrained(folder / "base")
    if inputs == "lora":
        adapter = peft.LoraConfig(r=rank, target_modules=list(LINEAR), init_lora_weights=False)
        adapted = peft.get_peft_model(base, adapter)
    for number in range(count):
        torch.manual_seed(number + 1)
        if inputs == "lora":
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.data.normal_(std=0.01)
            adapted.save_pretrained(str(folder / f"input-{number}"))
        else:
            state = {
                key: _fine_tuned(value, number + 1 + position * count)
                for position, (key, value) in enumerate(base.state_dict().items())
            }
            base.save_pretrained(folder / f"input-{number}", state_dict=state)


def _fine_tuned(weight: torch.Tensor, seed: int) -> torch.Tensor:
    if weight.ndim != 2:
        return weight + UPDATE_STD * torch.randn_like(weight)
    rows, columns = weight.shape
    return (weight.float() + update((rows, columns), seed)).to(weight.dtype)
