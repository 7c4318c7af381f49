"""Writing a LoRA adapter that peft and inference servers load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mergekit_spectral.adapters.files import CONFIG_NAME, WEIGHTS_NAMES
from mergekit_spectral.errors import MergeError
from mergekit_spectral.whole_files import (
    errors_as_sentences,
    move_up,
    replacement,
    require_writable,
    unfinished,
)

_PREFIX = "base_model.model."
_CARD_NAME = "README.md"
_NAMES = (*WEIGHTS_NAMES, _CARD_NAME, CONFIG_NAME)
_OF_MODELS = ("config.json", "model*.safetensors*", "pytorch_model*.bin*", "*.gguf")


class LayerKind(Enum):
    """How peft adapts a module, which decides the names and the axes of the factors."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    CONV1D = "conv1d"
    """transformers' layer for GPT-2, a linear one whose weight is [in, out]."""

    @classmethod
    def of(cls, module: nn.Module) -> LayerKind | None:
        """Return a module's kind, or None if peft adapts no matrix of it."""
        kinds = {nn.Linear: cls.LINEAR, nn.Embedding: cls.EMBEDDING, Conv1D: cls.CONV1D}
        return next((kind for type_, kind in kinds.items() if isinstance(module, type_)), None)


@dataclass(frozen=True)
class NewLayer:
    """The update B·A of one module's weight, with the axes that the weight has.

    Attributes:
        B: [rows, r].
        A: [r, columns].
        kind: the module's.
    """

    B: Tensor
    A: Tensor
    kind: LayerKind = LayerKind.LINEAR

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.A.shape[0]


def check_folder(folder: Path, inputs: Mapping[str, Path], overwrite: bool) -> None:
    """Check that an adapter may be written to a folder, and can be.

    Args:
        folder: for the adapter.
        inputs: the folders that it is made from, by what they are, for messages.
        overwrite: whether an adapter there may be replaced.

    Raises:
        MergeError: the folder is an input, holds a model, holds an adapter that may not be
            replaced, or cannot be written to.
    """
    other = "name another folder for the merged adapter."
    with errors_as_sentences(folder):
        there = sorted(os.listdir(folder)) if folder.exists() else []
        for what, path in inputs.items():
            if path.exists() and folder.exists() and path.samefile(folder):
                raise MergeError(f"{folder} is {what}, and would be overwritten; {other}")
        if models := [n for n in there if any(fnmatch(n, pattern) for pattern in _OF_MODELS)]:
            raise MergeError(
                f"{folder} holds a model ({models[0]}), which would load the adapter with it from "
                f"then on; {other}"
            )
        if earlier := [name for name in there if name in _NAMES]:
            if not overwrite:
                raise MergeError(
                    f"{folder} already holds {' and '.join(earlier)}; give --overwrite to replace "
                    f"the adapter there, or {other}"
                )
            if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
                raise MergeError(
                    f"{folder} is replaced as a whole, so it cannot be the working directory or "
                    "one around it; run the command from another one."
                )
    require_writable(folder.resolve().parent if earlier else folder)


def write_adapter(
    folder: Path,
    layers: Mapping[str, NewLayer],
    *,
    all_modules: Collection[str],
    base_model: str,
    dtype: torch.dtype,
    task_type: str | None = None,
    card: str,
) -> None:
    """Write an adapter whose updates are the layers' own: every scale is 1.

    Args:
        folder: made if missing.
        layers: by the name of the module, at least one.
        all_modules: names of all modules of the base, by which target modules are named in short
            where all of a kind are meant.
        base_model: the base's name or path.
        dtype: in which the factors are stored.
        task_type: peft's, such as ``CAUSAL_LM``.
        card: the text of README.md.

    An adapter in the folder is replaced when the new one is whole; other files stay as they are.

    Raises:
        MergeError: the folder cannot be written to, or a factor is out of the dtype's range.
    """
    turned = any(layer.kind is LayerKind.CONV1D for layer in layers.values())
    rank = max(layer.rank for layer in layers.values())
    # One scale for all, alpha / r = 1, for servers that know of no patterns.
    ranks = {name: layer.rank for name, layer in layers.items() if layer.rank != rank}
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        target_modules=short_names(layers.keys(), all_modules),
        fan_in_fan_out=turned,
        base_model_name_or_path=base_model,
        task_type=task_type,
        inference_mode=True,
    )
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for key, tensor in _peft_tensors(name, layer).items():
            tensors[key] = _stored(tensor, dtype, name)

    def write(place: Path) -> None:
        save_file(tensors, place / WEIGHTS_NAMES[0], metadata={"format": "pt"})
        (place / _CARD_NAME).write_text(card, encoding="utf-8", errors="replace")
        config.save_pretrained(str(place))

    with errors_as_sentences(folder):
        if any(os.path.lexists(folder / name) for name in _NAMES):
            with replacement(folder, _NAMES) as new:
                write(new)
            return
        with unfinished(folder) as new:
            write(new)
            # The configuration last: a folder without it is no adapter.
            move_up(new, (WEIGHTS_NAMES[0], _CARD_NAME, CONFIG_NAME))


def _stored(factor: Tensor, dtype: torch.dtype, module: str) -> Tensor:
    stored = factor.to(dtype).contiguous()
    if not stored.isfinite().all() or not stored.any():
        raise MergeError(
            f"The merged update of {module} is out of the range of "
            f"{str(dtype).removeprefix('torch.')}; its largest value would be "
            f"{float(factor.abs().max()):.3g}. Set --dtype float32, or another `lambda`."
        )
    return stored


def _peft_tensors(name: str, layer: NewLayer) -> dict[str, Tensor]:
    if layer.kind is LayerKind.EMBEDDING:
        return {
            f"{_PREFIX}{name}.lora_embedding_A": layer.B.T,
            f"{_PREFIX}{name}.lora_embedding_B": layer.A.T,
        }
    turned = layer.kind is LayerKind.CONV1D
    A, B = (layer.B.T, layer.A.T) if turned else (layer.A, layer.B)
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
