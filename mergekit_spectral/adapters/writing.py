"""Write a LoRA adapter that peft and inference servers load."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from mergekit_spectral.adapters.adapter_files import CONFIG_NAME, WEIGHTS_NAMES
from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral import dtype_name
from mergekit_spectral.whole_files import (
    errors_as_sentences,
    move_up,
    replacement,
    require_writable,
    unfinished,
)

_PREFIX = "base_model.model."
_WITH_HEAD = {peft.TaskType.SEQ_CLS, peft.TaskType.TOKEN_CLS, peft.TaskType.QUESTION_ANS}
_CARD_NAME = "README.md"
_NAMES = (*WEIGHTS_NAMES, _CARD_NAME, CONFIG_NAME)
_MODEL_FILES = ("config.json", "model*.safetensors*", "pytorch_model*.bin*", "*.gguf")


class LayerKind(Enum):
    """The kinds of layers that peft adapts. The kind decides the factors' names and axes."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    CONV1D = "conv1d"
    """A linear layer of transformers, used in GPT-2, whose weight is [in, out]."""

    @classmethod
    def of(cls, module: nn.Module) -> LayerKind | None:
        """Return a module's kind, or None if it is of another kind."""
        kinds = {nn.Linear: cls.LINEAR, nn.Embedding: cls.EMBEDDING, Conv1D: cls.CONV1D}
        return next((kind for type_, kind in kinds.items() if isinstance(module, type_)), None)


@dataclass(frozen=True)
class NewLayer:
    """The update B·A of one module's weight. B·A has the shape of the weight, [rows, columns].

    Attributes:
        B: left factor, [rows, r].
        A: right factor, [r, columns].
        kind: kind of the module.
    """

    B: Tensor
    A: Tensor
    kind: LayerKind = LayerKind.LINEAR

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.A.shape[0]

    def as_in_peft(self) -> tuple[Tensor, Tensor]:
        """Return the factors that peft calls A and B, in peft's axes."""
        return (self.A, self.B) if self.kind is LayerKind.LINEAR else (self.B.T, self.A.T)


def check_folder(folder: Path, inputs: Mapping[str, Path], overwrite: bool) -> None:
    """Check that an adapter may be written to a folder, and that the folder is writable.

    Args:
        folder: the folder for the adapter.
        inputs: the folders of the merge's inputs, by a description of each for messages.
        overwrite: whether an adapter in the folder may be replaced.

    Raises:
        MergeError: if the folder is an input, contains a model, contains an adapter that may not
            be replaced, or cannot be written to.
    """
    other = "give another folder for the merged adapter."
    with errors_as_sentences(folder):
        present = sorted(os.listdir(folder)) if folder.exists() else []
        for what, path in inputs.items():
            if path.exists() and folder.exists() and path.samefile(folder):
                raise MergeError(f"{folder} is {what}, and would be overwritten; {other}")
        if models := [n for n in present if any(fnmatch(n, pattern) for pattern in _MODEL_FILES)]:
            raise MergeError(
                f"{folder} contains a model ({models[0]}), and transformers would load the adapter "
                f"together with that model; {other}"
            )
        if earlier := [name for name in present if name in _NAMES]:
            if not overwrite:
                raise MergeError(
                    f"{folder} already contains {' and '.join(earlier)}; add --overwrite to "
                    f"replace the adapter there, or {other}"
                )
            if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
                raise MergeError(
                    f"{folder} would be replaced as a whole, so it cannot be the working directory "
                    "or one of its parents; run the command from another directory."
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
    rank_pattern: bool = False,
    card: str,
) -> None:
    """Write an adapter with the given updates. Every scale, alpha / r, is 1.

    An adapter in the folder is replaced once the new one is complete. Other files stay as they are.

    Args:
        folder: the adapter's folder; created if it does not exist.
        layers: the updates by the names of the modules, at least one.
        all_modules: names of all modules of the base. Where all modules with the same last part
            are adapted, ``target_modules`` has only that part, such as ``q_proj``.
        base_model: the base's name or path.
        dtype: the dtype of the stored factors.
        task_type: peft's task type, such as ``CAUSAL_LM``.
        rank_pattern: store each layer with its own rank, listed in ``rank_pattern``, and not as
            `with_one_rank` does. This makes a smaller file.
        card: the text of README.md.

    Raises:
        MergeError: if the folder cannot be written to, or a factor is out of the dtype's range.
    """
    if not rank_pattern:
        layers = with_one_rank(layers)
    config = adapter_config(layers, all_modules, base_model, task_type)
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for key, tensor in _peft_tensors(name, layer).items():
            tensors[key] = in_stored_dtype(tensor, dtype, name)

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
            # The configuration comes last: without it peft does not load an incomplete adapter.
            move_up(new, (WEIGHTS_NAMES[0], _CARD_NAME, CONFIG_NAME))


def common_task_type(configs: Iterable[peft.PeftConfig]) -> str | None:
    """Return the task type if all adapters have the same one and peft expects no head for it."""
    types = {config.task_type for config in configs}
    return types.pop() if len(types) == 1 and not types & _WITH_HEAD else None


def with_one_rank(layers: Mapping[str, NewLayer]) -> dict[str, NewLayer]:
    """Return the same updates, all with the largest rank: new columns of B and rows of A are 0.

    Not every server reads ``rank_pattern`` and ``alpha_pattern``: llama.cpp takes the rank from a
    layer's factors and alpha from the whole adapter, so it would scale layers of smaller rank up.
    """
    largest = max(layer.rank for layer in layers.values())
    padded = {}
    for name, layer in layers.items():
        more = largest - layer.rank
        padded[name] = replace(layer, B=pad(layer.B, (0, more)), A=pad(layer.A, (0, 0, 0, more)))
    return padded


def adapter_config(
    layers: Mapping[str, NewLayer],
    all_modules: Collection[str],
    base_model: str | None,
    task_type: str | None,
) -> peft.LoraConfig:
    """Return peft's configuration of an adapter with the given updates.

    Every layer's scale, alpha / r, is 1.

    Args:
        layers: the updates by the names of the modules, at least one.
        all_modules: names of all modules of the base.
        base_model: the base's name or path, if it is known.
        task_type: peft's task type, such as ``CAUSAL_LM``.
    """
    rank = max(layer.rank for layer in layers.values())
    ranks = {name: layer.rank for name, layer in layers.items() if layer.rank != rank}
    return peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
        target_modules=shorten_module_names(layers.keys(), all_modules),
        fan_in_fan_out=any(layer.kind is LayerKind.CONV1D for layer in layers.values()),
        base_model_name_or_path=base_model,
        task_type=task_type,
        inference_mode=True,
    )


def in_stored_dtype(factor: Tensor, dtype: torch.dtype, module: str) -> Tensor:
    """Return a factor in the dtype in which it is stored.

    Args:
        factor: the factor.
        dtype: the dtype.
        module: name of the module, for messages.

    Raises:
        MergeError: if the factor is out of the dtype's range.
    """
    stored = factor.to(dtype).contiguous()
    if not stored.isfinite().all() or not stored.any():
        raise MergeError(
            f"The merged update of {module} is out of the range of "
            f"{dtype_name(dtype)}: its largest value would be "
            f"{float(factor.abs().max()):.3g}. Store it in float32, or change `lambda`."
        )
    return stored


def _peft_tensors(name: str, layer: NewLayer) -> dict[str, Tensor]:
    A, B = layer.as_in_peft()
    if layer.kind is LayerKind.EMBEDDING:
        return {f"{_PREFIX}{name}.lora_embedding_A": A, f"{_PREFIX}{name}.lora_embedding_B": B}
    return {f"{_PREFIX}{name}.lora_A.weight": A, f"{_PREFIX}{name}.lora_B.weight": B}


def shorten_module_names(chosen: Collection[str], all_modules: Collection[str]) -> list[str]:
    """Shorten names of modules to their last part where all modules with that part are chosen."""
    existing = Counter(_last_part(name) for name in all_modules)
    wanted = Counter(_last_part(name) for name in chosen)
    return sorted(
        {
            part if wanted[part] == existing[part] else name
            for name, part in ((name, _last_part(name)) for name in chosen)
        }
    )


def _last_part(name: str) -> str:
    return name.rsplit(".", 1)[-1]
