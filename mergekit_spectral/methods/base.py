"""What the spectral methods share: from a tensor group to deltas, and back to a tensor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from mergekit.merge_methods.base import (
    BasePolicy,
    GroupMergeMethod,
    InputContract,
    MergeMethodSpec,
    PerInputValues,
    TensorGroup,
)
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.deltas import TaskDelta, as_matrices, ordinary, task_deltas
from mergekit_spectral.methods.parameters import Parameter, for_method
from mergekit_spectral.spectral import Delta
from mergekit_spectral.spectral.precision import exact_matmul

Settings = Mapping[str, Any]
"""A recipe's parameters for one tensor; those set per input are lists in the deltas' order."""


class SpectralMethod(GroupMergeMethod):
    """A method that merges task deltas: base + λ·merge(D_1 … D_T), rounded once.

    A subclass says how matrices are merged and how everything else is: vectors, scalars and, while
    ``embeddings`` is ``elementwise``, tensors with a vocabulary axis. Tensors of three axes are
    merged slice by slice over the first (fused experts), those of more as [out, rest]
    (convolutions).
    """

    def __init__(
        self, name: str, pretty_name: str, reference_url: str, parameters: Sequence[Parameter]
    ):
        self.spec = MergeMethodSpec(
            name=name,
            pretty_name=pretty_name,
            reference_url=reference_url,
            parameters=for_method(name, parameters),
            contract=InputContract(base=BasePolicy.REQUIRED),
        )

    @abstractmethod
    def merge_matrices(self, deltas: Sequence[Delta], settings: Settings) -> Delta:
        """Merge T deltas of one shape [out, in] into one, before λ."""

    @abstractmethod
    def merge_elementwise(self, deltas: Sequence[Tensor], settings: Settings) -> Tensor:
        """Merge T deltas of any one shape, entry by entry, before λ."""

    def validate_inputs(
        self,
        input_ids: Sequence[Hashable],
        base_id: Hashable | None = None,
        *,
        group_name: str | None = None,
    ) -> None:
        """Check, when a merge is planned and again for each tensor, that the base is there.

        Raises:
            MergeError: if the recipe names no base, the base lacks the tensor, or an input is
                listed twice.
        """
        name = self.spec.name
        self.require_base(base_id)
        if base_id not in input_ids:
            others = ", ".join(map(str, input_ids))
            raise MergeError(
                f"{name}: the base model {base_id} has no tensor {group_name}, so nothing can be "
                f"merged into it; it is only in {others}."
            )
        try:
            super().validate_inputs(input_ids, base_id, group_name=group_name)
        except ValueError as error:
            raise MergeError(f"{name}: {error}.") from None

    def require_base(self, base_id: Hashable | None) -> None:
        """Raise `MergeError` if the recipe names no base model."""
        if base_id is None:
            raise MergeError(
                f"{self.spec.name} merges differences to a base model: set `base_model` in the "
                "recipe to the model that the inputs were fine-tuned from."
            )

    @exact_matmul()
    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> Tensor:
        """Merge one tensor.

        Args:
            group: a base and any number of inputs, of one shape, dtype and device.
            parameters: values for the parameters of `spec`.

        Returns:
            A tensor of the base's shape, dtype and device; the base itself if no input differs
            from it.

        Raises:
            MergeError: if an input holds a NaN or an infinity.
        """
        assert group.base is not None  # by the contract
        base = ordinary(group.base.tensor)
        deltas = task_deltas(group)
        if all(delta.is_zero() for delta in deltas):
            return base

        settings: Settings = {
            name: value.values_for(group.non_base) if isinstance(value, PerInputValues) else value
            for name, value in parameters.items()
        }
        merged = self.merge_deltas(deltas, settings, group.metadata.vocabulary_axis is not None)
        scale = settings["lambda"]
        if isinstance(merged, Tensor):
            return torch.add(base, merged, alpha=scale).to(base.dtype)
        result = torch.empty_like(base, memory_format=torch.contiguous_format)
        for before, after, delta in zip(
            as_matrices(base), as_matrices(result), merged, strict=True
        ):
            delta.add_to(before, scale, out=after)
        return result

    def merge_deltas(
        self, deltas: Sequence[TaskDelta], settings: Settings, vocabulary: bool
    ) -> Tensor | list[Delta]:
        """Merge the deltas of one tensor of any shape, before λ.

        Args:
            deltas: T deltas, not all of them zero.
            settings: the recipe's parameters for this tensor.
            vocabulary: whether the tensor has a vocabulary axis.

        Returns:
            A tensor of the deltas' shape if it was merged elementwise, else its matrices.
        """
        if len(deltas[0].shape) < 2 or (vocabulary and settings["embeddings"] == "elementwise"):
            return self.merge_elementwise([delta.tensor() for delta in deltas], settings)
        inputs = zip(*(delta.matrices() for delta in deltas), strict=True)
        return [self.merge_matrices(matrices, settings) for matrices in inputs]
