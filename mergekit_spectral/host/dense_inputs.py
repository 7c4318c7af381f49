"""Dense inputs of a merge, in the place of mergekit's loaders.

What is no weight is refused when it is read: mergekit converts whatever it loads to the recipe's
``dtype``, the codes of quantized weights too. On a GPU, inputs stay in main memory until a method
needs their entries: mergekit moves every input of a tensor there before a method sees any, and
embeddings of eight fine-tunes of Llama 8B and their base take 9.5 GB.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions
from torch import Tensor

from mergekit_spectral.adapters import StoredWeights
from mergekit_spectral.adapters.deferred import HostTensor
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.left_out import left_out
from mergekit_spectral.host.loader_cache import loader_cache
from mergekit_spectral.host.mergeable import differs, dtype_name, why_not_mergeable

LOG = logging.getLogger(__name__)

_DENSE = "save the model with dense tensors of floating numbers"


class WeightLoader(LazyTensorLoader):
    """Reads a model's tensors and refuses those that are no weights.

    Args:
        model: whose tensors they are, for messages.
        loader: mergekit's loader for the model.
        converted: whether the recipe sets ``dtype``.
        others: loaders of all models of the merge, whose buffers must be the same.

    Attributes:
        read: the names of the tensors that were asked for.
    """

    def __init__(
        self,
        model: ModelReference,
        loader: LazyTensorLoader,
        converted: bool,
        others: Mapping[ModelReference, LazyTensorLoader],
    ):
        super().__init__(loader.index, loader.lazy_unpickle)
        self.read: set[str] = set()
        self._model, self._converted, self._others = model, converted, others

    def get_tensor(
        self,
        key: str,
        device: str = "cpu",
        aliases: list[str] | None = None,
        raise_on_missing: bool = True,
    ) -> Tensor | None:
        """Return a tensor.

        Raises:
            KeyError: if there is no such tensor and `raise_on_missing`.
            MergeError: if it is quantized, complex or sparse, or a buffer that other models have
                with other values.
        """
        self.read |= {key, *(aliases or [])}
        try:
            tensor = super().get_tensor(key, device, aliases, raise_on_missing)
        except NotImplementedError as error:
            raise MergeError(f"Tensor {key} of {self._model} has no values; {_DENSE}.") from error
        if tensor is not None:
            self._check(key, tensor)
        return tensor

    def _check(self, name: str, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:
            layout = str(tensor.layout).removeprefix("torch.")
            raise MergeError(f"Tensor {name} of {self._model} is {layout}; {_DENSE}.")
        shape, names = tuple(tensor.shape), self.index.tensor_paths
        why = why_not_mergeable(name, shape, tensor.dtype, names, self._converted)
        if why:
            raise MergeError(f"Tensor {name} of {self._model} {why}.")
        if tensor.is_floating_point():
            return
        for model, loader in self._others.items():
            other = LazyTensorLoader.get_tensor(loader, name, raise_on_missing=False)
            if other is not None and differs(tensor.cpu(), other):
                raise MergeError(buffers_differ(name, self._model, tensor.dtype, model))


def buffers_differ(
    name: str, model: ModelReference, dtype: torch.dtype, other: ModelReference
) -> str:
    """Say that a tensor is no weight, and so must be the same in all models."""
    return (
        f"Tensor {name} of {model} is of {dtype_name(dtype)} and differs from that of {other}; "
        "only real numbers can be merged, so it must be the same in all models."
    )


class HostLoader:
    """Reads a model's tensors into main memory and leaves them there.

    Args:
        loader: mergekit's loader for the model.
    """

    def __init__(self, loader: LazyTensorLoader):
        self.index = loader.index
        self.flush = loader.flush
        self._loader = loader

    def get_tensor(
        self,
        key: str,
        device: str = "cpu",
        aliases: list[str] | None = None,
        raise_on_missing: bool = True,
    ) -> Tensor | None:
        """Return a `HostTensor`, wanted on `device`.

        Raises:
            KeyError: if there is no such tensor and `raise_on_missing`.
        """
        tensor = self._loader.get_tensor(
            key, device="cpu", aliases=aliases, raise_on_missing=raise_on_missing
        )
        return None if tensor is None else HostTensor(tensor, torch.device(device))


@contextmanager
def weights_only(config: MergeConfiguration, options: MergeOptions) -> Iterator[None]:
    """Have mergekit refuse what is no weight in a model's files within this context.

    A warning follows if the merge has not read all weights of the base model.

    Raises:
        MergeError: if a model's files are of a form that cannot be read.
    """
    with loader_cache(options) as cache:
        models = {_without_adapter(model) for model in config.referenced_models()}
        loaders = {model: _opened(model, cache) for model in sorted(models, key=str)}
        plain = {m: loader for m, loader in loaders.items() if isinstance(loader, LazyTensorLoader)}
        for model, loader in plain.items():
            cache.loaders[model] = WeightLoader(model, loader, config.dtype is not None, plain)
        base = config.base_model
        read = cache.loaders.get(base) if base else None
        # mergekit changes the recipe's object while it plans.
        some_layers, some_modules = bool(config.slices), bool(config.modules)
        yield
        if base and isinstance(read, WeightLoader) and not some_modules:
            _warn_of_left_out(base, read, some_layers, options.trust_remote_code)


def _warn_of_left_out(
    model: ModelReference, loader: WeightLoader, some_layers: bool, trust_remote_code: bool
) -> None:
    names = loader.index.tensor_paths
    unread = [name for name in names if isinstance(name, str) and name not in loader.read]
    stored = StoredWeights(LazyTensorLoader(loader.index, loader.lazy_unpickle))
    headers = {name: stored.header(name) for name in unread}
    lacking = left_out(headers, loader.read, model.config(trust_remote_code), some_layers)
    if lacking.needed:
        LOG.warning("%s.", lacking.sentence(model, len(names)))


@contextmanager
def dense_inputs_in_main_memory(
    config: MergeConfiguration, options: MergeOptions
) -> Iterator[None]:
    """If the merge runs on a GPU, leave dense inputs in main memory within this context.

    Inputs that are read in factors already stay as they are. Where mergekit makes an embedding
    anew, for a tokenizer of the recipe's own, the new one goes to the GPU.
    """
    device = "cuda" if options.multi_gpu and torch.cuda.is_available() else options.device
    if device is None or torch.device(device).type != "cuda":
        yield
        return
    with loader_cache(options) as cache:
        loaders = {model: cache.get(model) for model in config.referenced_models()}
        dense: dict[ModelReference, Any] = {
            model: HostLoader(loader)
            for model, loader in loaders.items()
            if isinstance(loader, LazyTensorLoader)
        }
        cache.loaders.update(dense)
        yield


def _without_adapter(model: ModelReference) -> ModelReference:
    return model.model_copy(update={"lora": None})


def _opened(model: ModelReference, cache: LoaderCache) -> LazyTensorLoader:
    try:
        return cache.get(model)
    except NotImplementedError as error:
        raise MergeError(
            f"Model {model} has tensors of a kind that mergekit cannot read, such as PyTorch's "
            f"quantized ones; {_DENSE}."
        ) from error
