"""Read LoRA adapters that peft wrote: which weight each tensor changes, and by what.

A LoRA layer of rank r adds scale·B·A to a weight, with B [out, r] and A [r, in]. For embeddings and
layers with ``fan_in_fan_out``, the file contains the transposed factors. An adapter may also add to
biases (``lora_bias``), and may contain whole tensors that replace the base's (``modules_to_save``,
``bias``, resized embeddings).
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

import peft
import torch
from torch import Tensor

from mergekit_spectral.adapters.adapter_files import CONFIG_NAME, AdapterFiles
from mergekit_spectral.adapters.adapter_tensors import FACTOR_DTYPES, AdapterTensors
from mergekit_spectral.adapters.patterns import SECONDS, match_patterns
from mergekit_spectral.adapters.stored_tensors import Shape
from mergekit_spectral.errors import MergeError, first_line

_PREFIX = "base_model.model."
# Suffixes of the names of a layer's factors and biases. Other names are those of whole tensors.
_PARTS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "embedding A",
    ".lora_embedding_B": "embedding B",
    ".lora_B.bias": "bias",
}
# With these settings, the update is not just scale·B·A added to the base.
_NOT_A_PRODUCT = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "layer_replication": "layer replication",
    "trainable_token_indices": "trainable tokens",
}
# Initializations that do not change the base's weights.
_ADDITIVE_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")

# Where peft adapts several parameters of one module, it wraps the module once for each, and each
# time appends this to the name of the module inside.
_WRAPPED = ".base_layer"

# Suffixes of tensors that are only used to continue training. VeLoRA saves such a tensor.
_TRAINING_STATE = (".lora_velora_embed",)


class NotAProductError(MergeError):
    """The adapter does something other than adding B·A to weights of the base.

    Args:
        adapter: name of the adapter.
        what: the unsupported feature, in two or three words.
    """

    def __init__(self, adapter: str, what: str):
        super().__init__(
            f"Adapter {adapter} uses {what}, which is not an added product of two matrices; merge "
            "with `mergekit-yaml`, and give it --lora-merge-cache FOLDER for a full copy of the "
            "model, or merge the adapter into its base with peft first."
        )
        self.what = what


@dataclass(frozen=True)
class Product:
    """The update scale·B·A, [out, in], of one weight, with the keys of the factors in the file.

    Attributes:
        B: key of the left factor, [out, r, …].
        A: key of the right factor, [r, in, …].
        rank: the rank r.
        scale: alpha / r, or alpha / √r with rsLoRA.
        transposed: whether (B·A)ᵀ is added to the weight.
        embedding: whether the layer is an embedding.
        experts: number of matrices in a parameter with three axes, each with its own factors; None
            for other parameters.
    """

    B: str
    A: str
    rank: int
    scale: float
    transposed: bool = False
    embedding: bool = False
    experts: int | None = None


@dataclass(frozen=True)
class Addition:
    """The update scale·v of a bias.

    Attributes:
        vector: key of v in the file.
        scale: the factor that v is multiplied by.
    """

    vector: str
    scale: float


class LoraAdapter:
    """An adapter's updates, by the names of the weights that they change.

    Attributes:
        name: name of the adapter in the recipe.
        config: the configuration, as peft reads it.
        peft_version: version of peft that wrote the configuration; None if it is not stated.
        updates: the updates that are added, by weight.
        replacements: keys of the tensors that replace the base's weights, by weight.
        wrapped: keys of the factors B and A of peft's `target_parameters`, by module. Which
            parameter of the module they change follows from the model's structure.

    Raises:
        NotAProductError: if the adapter does something other than adding products.
        MergeError: if a factor is missing, the shapes of factors do not match each other or the
            configuration, peft does not accept a value of the configuration, or a tensor has a
            dtype or layout that cannot be added to weights.
    """

    def __init__(self, files: AdapterFiles):
        self.name = files.name
        config = require_products(files.name, files.config)
        self.config = config
        self.peft_version = files.peft_version
        self._tensors = AdapterTensors(files.weights)
        self.updates: dict[str, Product | Addition] = {}
        self.replacements: dict[str, str] = {}
        self.wrapped: dict[str, tuple[str, str]] = {}
        modules: dict[str, dict[str, str]] = defaultdict(dict)
        for key, shape in self._tensors.shapes.items():
            if key.endswith(_TRAINING_STATE):
                continue
            module, part = _split_key(key)
            if part is not None:
                modules[module][part] = key
                self._require_supported_dtype(key)
                continue
            if "lora_" in key or "token_adapter" in key:
                raise NotAProductError(files.name, f"the tensor {key}")
            self.replacements[module] = key
            if len(shape) > 1:
                self._require_supported_dtype(key)
        ranks, alphas = self.ranks_and_alphas(modules)
        for module, keys in modules.items():
            self._add_module(module, keys, ranks[module], alphas[module])

    def ranks_and_alphas(self, names: Collection[str]) -> tuple[dict[str, int], dict[str, float]]:
        """Return the ranks and the alphas in the configuration, by name."""
        ranks = self._values_by_pattern("rank_pattern", names, self.config.r)
        alphas = self._values_by_pattern("alpha_pattern", names, self.config.lora_alpha)
        return {name: int(rank) for name, rank in ranks.items()}, alphas

    def scale(self, rank: int, alpha: float) -> float:
        """Return the factor that B·A is multiplied by."""
        return alpha / (math.sqrt(rank) if self.config.use_rslora else rank)

    def rank_error(self, what: str, rank: int, actual: str) -> MergeError:
        """Return an error: the factors of `what` have another rank than the configuration."""
        return MergeError(
            f"Adapter {self.name}: its {CONFIG_NAME} gives {what} the rank {rank} (`r` or "
            f"`rank_pattern`), but its factors have {actual}. The scale of the update depends on "
            "the rank, so correct the configuration, or use the one that the adapter was saved "
            "with."
        )

    def shape_error(self, base: str, name: str, shape: Shape, expected: Shape) -> MergeError:
        """Return an error: the update of `name` has another shape than the weight in `base`."""
        return MergeError(
            f"Adapter {self.name} does not fit {base}: its update of {name} has shape "
            f"{list(shape)}, but the weight has shape {list(expected)}; give the base that the "
            "adapter was trained on, of the same size and vocabulary."
        )

    def wrapped_shapes(self, module: str) -> tuple[Shape, Shape]:
        """Return the shapes of the factors B and A of a wrapped module."""
        B, A = self.wrapped[module]
        return self._tensors.shapes[B], self._tensors.shapes[A]

    def update_shape(self, weight: str) -> Shape:
        """Return the shape of a weight's update; for a convolution, [out, rest]."""
        update, shapes = self.updates[weight], self._tensors.shapes
        if isinstance(update, Addition):
            return shapes[update.vector]
        if update.experts is not None:
            sides = shapes[update.B][0], shapes[update.A][1]
            return (update.experts, *(sides[::-1] if update.transposed else sides))
        sides = shapes[update.B][0], math.prod(shapes[update.A][1:])
        return sides[::-1] if update.transposed else sides

    def replacement_shape(self, weight: str) -> Shape:
        """Return the shape of the tensor that replaces a weight."""
        return self._tensors.shapes[self.replacements[weight]]

    def factors(self, weight: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Read B and A of a `Product`, in their stored dtype, without the scale.

        Returns:
            B [out, r] and A [r, in]; with experts B [experts, out, r] and A [experts, r, in].
        """
        update = self.updates[weight]
        assert isinstance(update, Product)
        if update.experts is not None:
            A, B = self._tensors.read(update.A, device), self._tensors.read(update.B, device)
            A = A.reshape(update.experts, update.rank, -1)
            # peft stores B as [out, rank * experts] with the experts' columns interleaved.
            B = B.reshape(-1, update.rank, update.experts).permute(2, 0, 1)
            return (A.mT, B.mT) if update.transposed else (B, A)
        B = self._tensors.read(update.B, device).flatten(1)
        A = self._tensors.read(update.A, device).flatten(1)
        return (A.T, B.T) if update.transposed else (B, A)

    def vector(self, weight: str, device: torch.device | str = "cpu") -> Tensor:
        """Read the vector of an `Addition`, in its stored dtype, without the scale."""
        update = self.updates[weight]
        assert isinstance(update, Addition)
        return self._tensors.read(update.vector, device)

    def replacement(self, weight: str, device: torch.device | str = "cpu") -> Tensor:
        """Read the tensor that replaces the base's weight, in its stored dtype."""
        return self._tensors.read(self.replacements[weight], device)

    def _require_supported_dtype(self, key: str) -> None:
        if key in self._tensors.unsupported:
            raise MergeError(
                f"Adapter {self.name}: its tensor {key} is {self._tensors.unsupported[key]}; save "
                f"it in one of {', '.join(FACTOR_DTYPES)}."
            )

    def _values_by_pattern(
        self, setting: str, modules: Collection[str], default: float
    ) -> dict[str, float]:
        """Return each module's value: that of the first pattern it matches, or `default`."""
        pattern: dict[str, float] = getattr(self.config, setting) or {}
        try:
            keys = match_patterns(list(pattern), list(modules))
        except (re.error, TimeoutError) as error:
            wrong = (
                f"and one of them cannot be parsed ({first_line(error)})"
                if isinstance(error, re.error)
                else f"and matching them to the modules takes more than {SECONDS:g} s"
            )
            raise MergeError(
                f"Adapter {self.name}: the keys of `{setting}` in its {CONFIG_NAME} are regular "
                f"expressions, {wrong}; write the modules' names instead."
            ) from error
        return {module: pattern.get(keys[module], default) for module in modules}

    def _add_module(self, module: str, keys: dict[str, str], rank: int, alpha: float) -> None:
        embedding = "embedding A" in keys or "embedding B" in keys
        kind = "embedding " if embedding else ""
        if f"{kind}A" not in keys or f"{kind}B" not in keys:
            missing = "B" if f"{kind}A" in keys else "A"
            raise MergeError(
                f"Adapter {self.name} has only one factor of {module}: lora_{missing} is missing; "
                "copy or download the adapter again."
            )
        A, B = keys[f"{kind}A"], keys[f"{kind}B"]
        shapes = self._tensors.shapes
        if len(shapes[A]) < 2 or shapes[A][:1] != shapes[B][1:2] or 0 in shapes[A] + shapes[B]:
            raise MergeError(
                f"Adapter {self.name}: the factors of {module} do not fit each other: A has shape "
                f"{list(shapes[A])} and B has shape {list(shapes[B])}; they must be [r, in] and "
                "[out, r] with the same rank r of at least 1."
            )
        if self.config.target_parameters and (module.endswith(_WRAPPED) or shapes[A][0] != rank):
            self.wrapped[module] = B, A
            return
        if shapes[A][0] != rank:
            raise self.rank_error(module, rank, f"rank {shapes[A][0]}")
        scale = self.scale(rank, alpha)
        transposed = embedding or bool(self.config.fan_in_fan_out)
        self.updates[f"{module}.weight"] = Product(B, A, rank, scale, transposed, embedding)
        if "bias" in keys:
            self.updates[f"{module}.bias"] = Addition(keys["bias"], scale)


def require_products(adapter: str, config: peft.PeftConfig) -> peft.LoraConfig:
    """Check that an adapter does nothing but add products of two matrices to weights.

    Args:
        adapter: name of the adapter, for messages.
        config: its configuration.

    Returns:
        The configuration, which is LoRA's.

    Raises:
        NotAProductError: if the adapter does something else.
        MergeError: if the adapter changes no weights, or a value of the configuration is of a wrong
            type or out of range.
    """
    if config.is_prompt_learning:
        raise MergeError(
            f"Adapter {adapter} is of peft's type {_peft_type(config)}, which changes "
            "no weights and so cannot be merged; give a LoRA adapter or a whole model."
        )
    if config.peft_type != peft.PeftType.LORA:
        raise NotAProductError(adapter, f"peft's {_peft_type(config)}")
    lora = cast(peft.LoraConfig, config)
    for setting, what in _NOT_A_PRODUCT.items():
        if getattr(lora, setting, None):
            raise NotAProductError(adapter, what)
    if lora.init_lora_weights not in _ADDITIVE_INITS:
        what = f"a base changed by its initialization, {lora.init_lora_weights}"
        raise NotAProductError(adapter, what)
    _check_config(adapter, lora)
    return lora


def _peft_type(config: peft.PeftConfig) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _check_config(adapter: str, config: peft.LoraConfig) -> None:
    """Check the types and ranges of the values that updates are computed from."""
    for setting in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(config, setting)
        if pattern is not None and not isinstance(pattern, dict):
            raise _config_error(adapter, setting, "an object of numbers by module", pattern)
    ranks = {"r": config.r, **_entries("rank_pattern", config.rank_pattern)}
    alphas = {"lora_alpha": config.lora_alpha}
    alphas |= _entries("alpha_pattern", config.alpha_pattern)
    for setting, rank in ranks.items():
        if not isinstance(rank, int) or rank < 1:
            raise _config_error(adapter, setting, "a rank of at least 1", rank)
    for setting, alpha in alphas.items():
        # The comparison is also false for NaN.
        in_range = isinstance(alpha, int | float) and abs(alpha) <= torch.finfo(torch.float32).max
        if not in_range or isinstance(alpha, bool):
            raise _config_error(adapter, setting, "a number in float32's range", alpha)
    if not isinstance(config.use_rslora, bool):
        raise _config_error(adapter, "use_rslora", "true or false", config.use_rslora)


def _entries(setting: str, pattern: dict[str, Any] | None) -> dict[str, Any]:
    return {f"{setting}.{key}": value for key, value in (pattern or {}).items()}


def _config_error(adapter: str, setting: str, wanted: str, value: object) -> MergeError:
    return MergeError(
        f"Adapter {adapter}: `{setting}` in its {CONFIG_NAME} must be {wanted}, got "
        f"{reprlib.repr(value)}."
    )


def _split_key(key: str) -> tuple[str, str | None]:
    """Split a key into module and part; for a whole tensor, return the weight's name and None."""
    name = key.removeprefix(_PREFIX)
    for ending, part in _PARTS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), part
    # peft inserts these parts into the names of a wrapped layer's own tensors, and of tensors of
    # modules_to_save.
    return re.sub(r"\.(base_layer|modules_to_save(\.default)?|original_module)\.", ".", name), None
