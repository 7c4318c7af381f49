"""Dense inputs of a merge: loaders in the place of mergekit's.

Tensors that are not weights are refused when they are read, because mergekit converts whatever it
loads to the recipe's ``dtype``, even the codes of quantized weights. On a GPU, inputs stay in main
memory until a method needs their entries. mergekit would move all inputs of a tensor to the GPU
first, and the embeddings of eight fine-tunes of Llama 8B and their base take 9.5 GB.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from mergekit.options import MergeOptions
from torch import Tensor

from mergekit_spectral.adapters.deferred import HostTensor
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.loaders import Loader, LoaderTable, TensorLoader
from mergekit_spectral.host.mergeable import differs, why_not_mergeable
from mergekit_spectral.spectral import dtype_name

_DENSE = "save the model with dense tensors of floating numbers"


class WeightLoader(TensorLoader):
    """Reads a model's tensors and refuses those that are not weights.

    Args:
        model: whose tensors they are, for messages.
        loader: mergekit's loader for the model.
        converted: whether the recipe sets ``dtype``.
        others: loaders of all models of the merge, whose buffers must be the same.

    Attributes:
        loader: mergekit's loader for the model.
        read_names: the names of the tensors that were asked for.
    """

    def __init__(
        self,
        model: ModelReference,
        loader: LazyTensorLoader,
        converted: bool,
        others: Mapping[ModelReference, LazyTensorLoader],
    ):
        self.index = loader.index
        self.loader = loader
        self.read_names: set[str] = set()
        self._model, self._converted, self._others = model, converted, others

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a tensor.

        Raises:
            MergeError: it is quantized, complex or sparse, or a buffer that other models have with
                other values.
        """
        self.read_names.add(name)
        try:
            tensor = self.loader.get_tensor(name, device=str(device))
        except NotImplementedError as error:
            raise MergeError(f"Tensor {name} of {self._model} has no values; {_DENSE}.") from error
        assert tensor is not None  # the index has its name
        self._check(name, tensor)
        return tensor

    def flush(self) -> None:
        self.loader.flush()  # type: ignore[no-untyped-call]

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
            other = loader.get_tensor(name, raise_on_missing=False)
            if other is not None and differs(tensor.cpu(), other):
                raise MergeError(buffers_differ(name, self._model, tensor.dtype, model))


def buffers_differ(
    name: str, model: ModelReference, dtype: torch.dtype, other: ModelReference
) -> str:
    """Return the message for a buffer, which must be the same in all models, and is not."""
    return (
        f"Tensor {name} of {model} is of {dtype_name(dtype)} and differs from that of {other}; "
        "only real numbers can be merged, so it must be the same in all models."
    )


class HostLoader(TensorLoader):
    """Reads a model's tensors into main memory and leaves them there.

    Args:
        loader: the model's loader.
    """

    def __init__(self, loader: Loader):
        self.index = loader.index
        self._loader = loader

    def read(self, name: str, device: torch.device) -> HostTensor:
        """Return a tensor in main memory that is wanted on `device`."""
        tensor = self._loader.get_tensor(name, device="cpu")
        assert tensor is not None  # the index has its name
        return HostTensor(tensor, device)

    def flush(self) -> None:
        self._loader.flush()


def lend_weight_loaders(
    config: MergeConfiguration, table: LoaderTable
) -> dict[ModelReference, WeightLoader]:
    """Have mergekit refuse tensors that are not weights in the files of a recipe's models.

    Args:
        config: the recipe.
        table: mergekit's, for the length of the merge.

    Returns:
        The new loaders, by model.

    Raises:
        MergeError: a model's files are of a form that cannot be read.
    """
    models = {_without_adapter(model) for model in config.referenced_models()}
    opened = {model: _open(model, table) for model in sorted(models, key=str)}
    plain = {m: loader for m, loader in opened.items() if isinstance(loader, LazyTensorLoader)}
    # A loader has one file open at a time, so buffers are compared through loaders of their own.
    others = {m: LazyTensorLoader(each.index, each.lazy_unpickle) for m, each in plain.items()}
    loaders = {
        model: WeightLoader(model, loader, config.dtype is not None, others)
        for model, loader in plain.items()
    }
    table.put(loaders)
    return loaders


def keep_in_main_memory(
    config: MergeConfiguration, options: MergeOptions, table: LoaderTable
) -> None:
    """If the merge runs on a GPU, have mergekit leave dense inputs in main memory.

    Inputs that are read in factors are left as they are. Where mergekit recomputes an embedding for
    another tokenizer, the new one goes to the GPU.

    Args:
        config: the recipe.
        options: mergekit's.
        table: mergekit's, for the length of the merge.
    """
    device = "cuda" if options.multi_gpu and torch.cuda.is_available() else options.device
    if device is None or torch.device(device).type != "cuda":
        return
    loaders = {model: table.open(model) for model in config.referenced_models()}
    table.put(
        {
            model: HostLoader(loader)
            for model, loader in loaders.items()
            if isinstance(loader, LazyTensorLoader | WeightLoader)
        }
    )


def _without_adapter(model: ModelReference) -> ModelReference:
    return model.model_copy(update={"lora": None})


def _open(model: ModelReference, table: LoaderTable) -> Loader:
    try:
        return table.open(model)
    except NotImplementedError as error:
        raise MergeError(
            f"Model {model} has tensors of a kind that mergekit cannot read, such as PyTorch's "
            f"quantized ones; {_DENSE}."
        ) from error
