"""The LoRA layers of a model that is loaded with peft: read updates, and add an adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import peft
import torch
from peft.tuners.lora import LoraModel
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mergekit_spectral.adapters.adapted import AdaptedTensor
from mergekit_spectral.adapters.writing import LayerKind, NewLayer, adapter_config, common_task_type
from mergekit_spectral.errors import MergeError


class LoadedLayer:
    """A layer of a loaded model that has LoRA updates.

    Args:
        name: name of the module in the base model.
        layer: peft's layer.
        vocabulary: whether the layer is the model's input or output embedding.
    """

    def __init__(self, name: str, layer: LoraLayer, vocabulary: bool):
        self.name = name
        self.vocabulary = vocabulary
        self._layer = layer

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return f"{self.name}.weight"

    @property
    def kind(self) -> LayerKind:
        """Kind of the layer. A convolution counts as a linear layer on flattened patches."""
        base = self._layer.get_base_layer()
        if isinstance(base, Conv1D):
            return LayerKind.CONV1D
        # The base layer's class does not tell: quantization replaces it.
        return LayerKind.EMBEDDING if self._layer.lora_embedding_A else LayerKind.LINEAR

    @property
    def is_product(self) -> bool:
        """Whether every update is one product of two matrices that is added to the weight."""
        base = self._layer.get_base_layer()
        wrapped = isinstance(self._layer, ParamWrapper) or isinstance(base, nn.MultiheadAttention)
        return not wrapped and getattr(base, "groups", 1) == 1

    def has(self, adapter: str) -> bool:
        """Whether an adapter changes the weight."""
        return adapter in self._layer.lora_A or adapter in self._layer.lora_embedding_A

    def has_bias(self, adapter: str) -> bool:
        """Whether an adapter changes the bias."""
        return bool(self._layer.lora_bias.get(adapter))

    def factor_dtype(self, adapter: str) -> torch.dtype:
        """Dtype of an adapter's factors."""
        return torch.promote_types(*(factor.dtype for factor in self._factors(adapter)))

    def device(self, adapters: Sequence[str]) -> torch.device:
        """Device of the factors of the first of the adapters that changes the weight."""
        return next(self._factors(each)[0].device for each in adapters if self.has(each))

    def read(self, adapter: str, shape: torch.Size, device: torch.device) -> AdaptedTensor:
        """Return an adapter's update of the weight, whose own values are not read.

        Args:
            adapter: name of the adapter, which need not change the weight.
            shape: shape of the weight, [out, in]; see `shape`.
            device: device for the update.
        """
        update: tuple[Tensor, ...] = ()
        scale = 1.0
        if self.has(adapter):
            A, B = (factor.detach().to(device) for factor in self._factors(adapter))
            update = (B, A) if self.kind is LayerKind.LINEAR else (A.T, B.T)
            scale = float(self._layer.scaling[adapter])
        return AdaptedTensor(_no_base, None, update, scale, shape, torch.float32, device)

    def shape(self, adapter: str) -> torch.Size:
        """Return the shape of an adapter's update, in the axes of the weight.

        Raises:
            MergeError: if the factors have no values.
        """
        A, B = self._factors(adapter)
        if A.is_meta or B.is_meta:
            raise MergeError(
                f"The factors of {self.name} in adapter {adapter} are on the meta device, without "
                "values; load the adapter to the CPU or a GPU."
            )
        shape = (B.shape[0], A.shape[1])
        return torch.Size(shape if self.kind is LayerKind.LINEAR else shape[::-1])

    def put(self, adapter: str, new: NewLayer) -> None:
        """Replace the factors of an adapter that peft has added to the layer."""
        A, B = new.as_in_peft()
        if new.kind is LayerKind.EMBEDDING:
            self._layer.lora_embedding_A[adapter] = _frozen(A)
            self._layer.lora_embedding_B[adapter] = _frozen(B)
            return
        for place, factor in ((self._layer.lora_A, A), (self._layer.lora_B, B)):
            module = place[adapter]
            module.weight = _frozen(factor.reshape(cast(Tensor, module.weight).shape))

    def _factors(self, adapter: str) -> tuple[Tensor, Tensor]:
        """Return A [r, in] and B [out, r] as peft has them, of convolutions flattened."""
        layer = self._layer
        if adapter in layer.lora_embedding_A:
            return layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
        A, B = (cast(Tensor, place[adapter].weight) for place in (layer.lora_A, layer.lora_B))
        return A.flatten(1), B.flatten(1)


_EMBEDDINGS = ("get_input_embeddings", "get_output_embeddings")


def find_layers(model: peft.PeftModel) -> list[LoadedLayer]:
    """Return the LoRA layers of a loaded model, in the model's order."""
    base = model.get_base_model()
    vocabularies = [module for name in _EMBEDDINGS if (module := _call(base, name)) is not None]
    return [
        LoadedLayer(name, module, vocabulary=any(module is each for each in vocabularies))
        for name, module in _walk(base)
        if isinstance(module, LoraLayer)
    ]


def _call(base: nn.Module, method: str) -> object:
    """Return what a method of transformers' models returns; None where it cannot be called."""
    try:
        return getattr(base, method)()
    except (AttributeError, NotImplementedError):
        return None


def find_replaced_modules(model: peft.PeftModel, adapter: str) -> Iterator[str]:
    """Yield the names of the modules that an adapter replaces, as ``modules_to_save`` does."""
    for name, module in _walk(model.get_base_model()):
        copies = getattr(module, "modules_to_save", {})
        if isinstance(module, AuxiliaryTrainingWrapper) and adapter in copies:
            yield name


def add_adapter(
    model: peft.PeftModel, name: str, layers: Mapping[str, NewLayer], inputs: Sequence[str]
) -> None:
    """Add an adapter with the given updates to a loaded model. It is not activated.

    Args:
        model: the model.
        name: name of the new adapter.
        layers: the updates by the names of the modules, at least one. Their factors are stored as
            they are.
        inputs: names of the adapters that it was merged from.
    """
    configs = [model.peft_config[each] for each in inputs]
    base = model.get_base_model()
    config = adapter_config(
        layers,
        # peft looks for the names among all modules, also in those that it has put there.
        [module for module, _ in base.named_modules() if module],
        configs[0].base_model_name_or_path,
        common_task_type(configs),
    )
    tuner = cast(LoraModel, model.base_model)
    tuner.peft_config[name] = config
    try:
        # On the meta device, because the factors are replaced. The base may have no values either.
        tuner.inject_adapter(tuner.model, name, low_cpu_mem_usage=True)
    except BaseException:
        tuner.delete_adapter(name)
        raise
    found = {layer.name: layer for layer in find_layers(model) if layer.has(name)}
    assert found.keys() == layers.keys()
    for module, layer in layers.items():
        found[module].put(name, layer)


def _walk(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a base model by name, without those that peft has put inside of them."""
    for name, child in module.named_children():
        yield f"{prefix}{name}", child
        if not isinstance(child, BaseTunerLayer | AuxiliaryTrainingWrapper):
            yield from _walk(child, f"{prefix}{name}.")


def _frozen(factor: Tensor) -> nn.Parameter:
    return nn.Parameter(factor.contiguous(), requires_grad=False)


def _no_base() -> Tensor:
    raise NotImplementedError("the weights of a loaded model are not read")
