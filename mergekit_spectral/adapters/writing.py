"""Writing a LoRA adapter that peft and inference servers load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor

from mergekit_spectral.adapters.files import CONFIG_NAME, WEIGHTS_NAMES

_PREFIX = "base_model.model."


@dataclass(frozen=True)
class NewLayer:
    """The update B·A of one module's weight.

    Attributes:
        B: [out, r].
        A: [r, in].
        embedding: whether the module is an embedding, whose weight is [vocabulary, width].
    """

    B: Tensor
    A: Tensor
    embedding: bool = False

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.A.shape[0]


def write_adapter(
    folder: Path,
    layers: Mapping[str, NewLayer],
    *,
    all_modules: Collection[str],
    base_model: str,
    dtype: torch.dtype,
    fan_in_fan_out: bool = False,
    task_type: str | None = None,
    card: str,
) -> None:
    """Write an adapter whose updates are the layers' own: every scale is 1.

    Args:
        folder: made if missing; an adapter in it is replaced.
        layers: by the name of the module, at least one.
        all_modules: names of all modules of the base that have a weight matrix, by which target
            modules are named in short where all of a kind are meant.
        base_model: the base's name or path.
        dtype: in which the factors are stored.
        fan_in_fan_out: whether the base's layers keep their weights transposed.
        task_type: peft's, such as ``CAUSAL_LM``.
        card: the text of README.md.

    The configuration is written last: a folder without it is no adapter.
    """
    rank = max(layer.rank for layer in layers.values())
    # One scale for all, alpha / r = 1, for servers that know of no patterns.
    ranks = {name: layer.rank for name, layer in layers.items() if layer.rank != rank}
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        target_modules=short_names(layers.keys(), all_modules),
        fan_in_fan_out=fan_in_fan_out,
        base_model_name_or_path=base_model,
        task_type=task_type,
        inference_mode=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (CONFIG_NAME, *WEIGHTS_NAMES):
        (folder / stale).unlink(missing_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        tensors |= _peft_tensors(name, layer, fan_in_fan_out)
    stored = {key: tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
    unfinished = folder / f"{WEIGHTS_NAMES[0]}.unfinished"
    save_file(stored, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, folder / WEIGHTS_NAMES[0])
    (folder / "README.md").write_text(card, encoding="utf-8")
    config.save_pretrained(str(folder))


def _peft_tensors(name: str, layer: NewLayer, fan_in_fan_out: bool) -> dict[str, Tensor]:
    if layer.embedding:
        return {
            f"{_PREFIX}{name}.lora_embedding_A": layer.B.T,
            f"{_PREFIX}{name}.lora_embedding_B": layer.A.T,
        }
    A, B = (layer.B.T, layer.A.T) if fan_in_fan_out else (layer.A, layer.B)
    return {f"{_PREFIX}{name}.lora_A.weight": A, f"{_PREFIX}{name}.lora_B.weight": B}


def short_names(chosen: Collection[str], all_modules: Collection[str]) -> list[str]:
    """Name modules by their last part where all modules of that name are chosen, else in full."""
    there = Counter(_last(name) for name in all_modules)
    wanted = Counter(_last(name) for name in chosen)
    return sorted(
        {_last(name) if wanted[_last(name)] == there[_last(name)] else name for name in chosen}
    )


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
