"""Loaders of tensors, and how they are lent to mergekit for the length of a merge or of a plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from mergekit.common import ModelReference
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions
from torch import Tensor

from mergekit_spectral.adapters.stored_tensors import Header


class TensorLoader(ABC):
    """Gives mergekit the tensors of one model, in the place of its own `LazyTensorLoader`.

    mergekit uses three things of a loader: `index`, `get_tensor` and `flush`.

    Attributes:
        index: which tensors there are. mergekit looks at the names in `tensor_paths`.
    """

    index: ShardedTensorIndex

    @abstractmethod
    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a tensor of the index, wanted on `device`."""

    def get_tensor(
        self,
        key: str,
        device: str = "cpu",
        aliases: list[str] | None = None,
        raise_on_missing: bool = True,
    ) -> Tensor | None:
        """Return the tensor that the index has under `key`, or else under one of `aliases`.

        Returns:
            What `read` returns; None if there is no such tensor and not `raise_on_missing`.

        Raises:
            KeyError: there is no such tensor, and `raise_on_missing`.
        """
        for name in (key, *(aliases or ())):
            if name in self.index.tensor_paths:
                return self.read(name, torch.device(device))
        if raise_on_missing:
            raise KeyError(key)
        return None

    def flush(self) -> None:  # noqa: B027, most loaders keep no file open
        """Close what is open. A later `get_tensor` opens it again."""


Loader: TypeAlias = LazyTensorLoader | TensorLoader
"""A loader of mergekit's or of ours."""


class HeaderLoader(TensorLoader):
    """Gives tensors that have a shape and a dtype, and no entries.

    Args:
        index: of the model's tensors.
        headers: their shapes and dtypes.

    Attributes:
        read_names: the names of the tensors that mergekit has asked for.
    """

    def __init__(self, index: ShardedTensorIndex, headers: Mapping[str, Header]):
        self.index = index
        self.read_names: set[str] = set()
        self._headers = headers

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a tensor on the meta device."""
        self.read_names.add(name)
        shape, dtype = self._headers[name]
        return torch.empty(shape, dtype=dtype, device="meta")


class LoaderTable:
    """mergekit's table of loaders: one for the whole process, which all of its threads use.

    Args:
        options: mergekit's; the table is set up with them.
    """

    def __init__(self, options: MergeOptions):
        self._cache = LoaderCache()
        self._cache.setup(options)
        # mergekit declares the table for loaders of its own class.
        self.loaders: dict[ModelReference, Loader] = self._cache.loaders  # type: ignore[assignment]

    def open(self, model: ModelReference) -> Loader:
        """Return a model's loader. mergekit opens the files if the table has none yet.

        For ``base+adapter`` it then writes a merged copy, which needs ``lora_merge_cache``.
        """
        return self._cache.get(model)

    def put(self, loaders: Mapping[ModelReference, Loader]) -> None:
        """Have mergekit read models through these loaders from now on."""
        self.loaders.update(loaders)


@contextmanager
def lend_loaders(
    options: MergeOptions, loaders: Mapping[ModelReference, Loader] | None = None
) -> Iterator[LoaderTable]:
    """Lend loaders to mergekit for the length of this context.

    At its end the table has the loaders that it had before. Those that were put into it within the
    context, by us or by mergekit, are taken out.

    Args:
        options: mergekit's.
        loaders: by model; more can be put into the table within the context.

    Yields:
        mergekit's table of loaders.
    """
    table = LoaderTable(options)
    before = dict(table.loaders)
    try:
        table.put(loaders or {})
        yield table
    finally:
        for model in table.loaders.keys() - before.keys():
            del table.loaders[model]
        table.put(before)
