"""The interfaces to an adapter's base model: its weights, and the structure of its modules."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from mergekit_spectral.adapters.stored_tensors import Header

if TYPE_CHECKING:
    from mergekit.io.lazy_tensor_loader import ShardedTensorIndex


class BaseWeights(Protocol):
    """The weights of a base model: shapes and dtypes, and values on demand.

    Attributes:
        index: mergekit's index of the weights.
    """

    index: ShardedTensorIndex

    def header(self, name: str) -> Header:
        """Return a weight's shape and dtype."""

    def read(self, name: str, device: torch.device) -> Tensor:
        """Return a weight on `device`."""


class BaseStructure(Protocol):
    """The modules of a base model, and how the tensors in its files belong to them."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Every module by its name; empty if the model cannot be built."""

    def is_conv1d(self, module: str) -> bool:
        """Return whether a module is transformers' Conv1D, which stores its weight as [in, out]."""

    def find_renamed(self, stored: Collection[str]) -> Mapping[str, str]:
        """Find the tensors that have one name in the files and another in the model.

        Args:
            stored: the names in the files.

        Returns:
            Each such tensor's name in the files, by its name in the model. Tensors that
            transformers assembles from several stored tensors are not included.
        """

    def is_found_by_mergekit(self, name: str, stored: Collection[str]) -> bool:
        """Return whether mergekit can load a tensor that has another name in the files.

        Args:
            name: the tensor's name in the model.
            stored: the names in the files.
        """

    def find_parts(self, name: str, stored: Collection[str]) -> list[str]:
        """Find the stored tensors from which mergekit assembles a tensor of the model.

        Args:
            name: the tensor's name in the model.
            stored: the names in the files.

        Returns:
            The names of the stored tensors: `name` alone if it is stored itself, none if mergekit
            cannot assemble it.
        """

    def is_merged_whole(self, name: str) -> bool:
        """Return whether mergekit merges a tensor of the model as one tensor, not its parts."""
