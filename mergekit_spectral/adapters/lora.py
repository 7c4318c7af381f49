"""LoRA adapters as peft writes them: which weight each tensor changes, and by what.

A LoRA layer of rank r adds scale·B·A to a weight, with B [out, r] and A [r, in]. Embeddings and
layers with ``fan_in_fan_out`` hold the transpose. An adapter may also add to biases
(``lora_bias``), and may carry whole tensors that replace the base's (``modules_to_save``, ``bias``,
embeddings that were resized).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import cast

import peft
import torch
from peft.utils.other import get_pattern_key
from torch import Tensor

from mergekit_spectral.adapters.files import AdapterFiles
from mergekit_spectral.adapters.tensors import AdapterTensors, Shape
from mergekit_spectral.errors import MergeError

_PREFIX = "base_model.model."
# What peft's names end in, to the part that it is; anything else stands for a whole tensor.
_PARTS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding A",
    ".lora_embedding_B": "embedding B",
    ".lora_B.bias": "bias",
}
# Settings under which the update is more, or other, than scale·B·A on the base as it is.
_NOT_A_PRODUCT = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "layer replication",
    "target_parameters": "LoRA on bare parameters",
    "trainable_token_indices": "trainable tokens",
}
_ADDITIVE_INITS = (True, False, "gaussian", "eva", "orthogonal")


class NotAProductError(MergeError):
    """The adapter does something other than adding B·A to weights of the base.

    Args:
        adapter: its name.
        what: what it does, in two or three words.
    """

    def __init__(self, adapter: str, what: str):
        super().__init__(
            f"Adapter {adapter} uses {what}, which is not an added product of two matrices; give "
            "--lora-merge-cache FOLDER to merge it through a full copy of the model, or merge it "
            "into its base yourself and name the result."
        )
        self.what = what


@dataclass(frozen=True)
class Product:
    """The update scale·B·A, [out, in], of one weight, by the keys of its factors.

    Attributes:
        B: key of the left factor, [out, r, …].
        A: key of the right factor, [r, in, …].
        rank: r.
        scale: alpha / r, or alpha / √r with rsLoRA.
        transposed: whether the weight gets (B·A)ᵀ.
        embedding: whether the layer is an embedding.
    """

    B: str
    A: str
    rank: int
    scale: float
    transposed: bool = False
    embedding: bool = False


@dataclass(frozen=True)
class Addition:
    """The update scale·v of a bias, by the key of v."""

    vector: str
    scale: float


class LoraAdapter:
    """An adapter's updates by the names of the weights that they change.

    Attributes:
        name: what the recipe calls the adapter.
        config: as peft reads it.
        updates: what is added, by weight.
        replacements: keys of the tensors that replace the base's, by weight.

    Raises:
        NotAProductError: if the adapter is of another kind than added products.
        MergeError: if a factor is missing or two factors do not fit each other.
    """

    def __init__(self, files: AdapterFiles):
        self.name = files.name
        if files.config.is_prompt_learning:
            raise MergeError(
                f"Adapter {files.name} is of peft's type {_type(files.config)}, which changes no "
                "weight and so cannot be merged; an input is a LoRA adapter or a whole model."
            )
        if files.config.peft_type != peft.PeftType.LORA:
            raise NotAProductError(files.name, f"peft's {_type(files.config)}")
        config = cast(peft.LoraConfig, files.config)
        for setting, what in _NOT_A_PRODUCT.items():
            if getattr(config, setting, None):
                raise NotAProductError(files.name, what)
        if config.init_lora_weights not in _ADDITIVE_INITS:
            what = f"a base changed by its initialization, {config.init_lora_weights}"
            raise NotAProductError(files.name, what)

        self.config = config
        self._tensors = AdapterTensors(files.weights)
        self.updates: dict[str, Product | Addition] = {}
        self.replacements: dict[str, str] = {}
        modules: dict[str, dict[str, str]] = defaultdict(dict)
        for key in self._tensors.shapes:
            module, part = _split(key)
            if part is None:
                if "lora_" in key or "token_adapter" in key:
                    raise NotAProductError(files.name, f"the tensor {key}")
                self.replacements[module] = key
            else:
                modules[module][part] = key
        for module, keys in modules.items():
            self._add_module(module, keys, config)

    def update_shape(self, weight: str) -> Shape:
        """Return the shape of a weight's update; of a convolution's as [out, rest]."""
        update, shapes = self.updates[weight], self._tensors.shapes
        if isinstance(update, Addition):
            return shapes[update.vector]
        sides = shapes[update.B][0], math.prod(shapes[update.A][1:])
        return sides[::-1] if update.transposed else sides

    def replacement_shape(self, weight: str) -> Shape:
        """Return the shape of the tensor that replaces a weight."""
        return self._tensors.shapes[self.replacements[weight]]

    def factors(self, weight: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Return B [out, r] and A [r, in] of a `Product`, as stored, without its scale."""
        update = self.updates[weight]
        assert isinstance(update, Product)
        B = self._tensors.read(update.B, device).flatten(1)
        A = self._tensors.read(update.A, device).flatten(1)
        return (A.T, B.T) if update.transposed else (B, A)

    def vector(self, weight: str, device: torch.device | str = "cpu") -> Tensor:
        """Return the vector of an `Addition`, as stored, without its scale."""
        update = self.updates[weight]
        assert isinstance(update, Addition)
        return self._tensors.read(update.vector, device)

    def replacement(self, weight: str, device: torch.device | str = "cpu") -> Tensor:
        """Return the tensor that replaces the base's, as stored."""
        return self._tensors.read(self.replacements[weight], device)

    def _add_module(self, module: str, keys: dict[str, str], config: peft.LoraConfig) -> None:
        embedding = "embedding A" in keys or "embedding B" in keys
        kind = "embedding " if embedding else ""
        if f"{kind}A" not in keys or f"{kind}B" not in keys:
            missing = "B" if f"{kind}A" in keys else "A"
            raise MergeError(
                f"Adapter {self.name} has only half of {module}: lora_{missing} is missing."
            )
        A, B = keys[f"{kind}A"], keys[f"{kind}B"]
        shapes = self._tensors.shapes
        if len(shapes[A]) < 2 or shapes[A][:1] != shapes[B][1:2]:
            raise MergeError(
                f"Adapter {self.name}: the factors of {module} do not fit each other, A has shape "
                f"{shapes[A]} and B {shapes[B]}; they must be [r, in] and [out, r] with one rank r."
            )
        rank = shapes[A][0]
        scale = _scale(config, module, rank)
        transposed = embedding or bool(config.fan_in_fan_out)
        self.updates[f"{module}.weight"] = Product(B, A, rank, scale, transposed, embedding)
        if "bias" in keys:
            self.updates[f"{module}.bias"] = Addition(keys["bias"], scale)


def _type(config: peft.PeftConfig) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _scale(config: peft.LoraConfig, module: str, rank: int) -> float:
    pattern = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), module), config.lora_alpha)
    return float(alpha / math.sqrt(rank) if config.use_rslora else alpha / rank)


def _split(key: str) -> tuple[str, str | None]:
    """Split a key into module and part, or give the whole weight's name and None."""
    name = key.removeprefix(_PREFIX)
    for ending, part in _PARTS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), part
    # peft marks the wrapped layer's own tensors and those of modules_to_save.
    return re.sub(r"\.(base_layer|modules_to_save(\.default)?|original_module)\.", ".", name), None
