"""What the spectral methods share: from a tensor group to deltas, and back to a tensor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from mergekit.merge_methods.base import (
    BasePolicy,
    BatchOptions,
    GroupMergeMethod,
    InputContract,
    MergeMethodSpec,
    PerInputValues,
    TensorGroup,
)
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.costs import (
    BLOCK_BYTES,
    FACTORED_BYTES,
    TensorInputs,
    Work,
)
from mergekit_spectral.methods.deltas import (
    TaskDelta,
    is_finite,
    stored,
    task_deltas,
)
from mergekit_spectral.methods.device_memory import in_blocks_that_fit, moved_if_small
from mergekit_spectral.methods.parameters import Parameter, for_method
from mergekit_spectral.spectral import Delta, DeltaEntries, Entries, Store
from mergekit_spectral.spectral.gram import LinAlgError
from mergekit_spectral.spectral.precision import FLOATS, dtype_name, exact_matmul

Settings = Mapping[str, Any]
"""A recipe's parameters for one tensor; those set per input are lists in the deltas' order."""


class SpectralMethod(GroupMergeMethod):
    """A method that merges task deltas: base + λ·merge(D_1 … D_T), rounded once.

    A subclass says how matrices are merged and how everything else is: vectors, scalars and, while
    ``embeddings`` is ``elementwise``, tensors with a vocabulary axis. Tensors of three axes are
    merged slice by slice over the first (fused experts), those of more as [out, rest]
    (convolutions).

    A subclass also says what merging a matrix costs, for `mergekit-spectral check`.

    Attributes:
        summary: what it does, in a line.
        reads_lazily: whether adapters are read in factors, and dense inputs are left in main
            memory.
        averages_all: whether an entry's result is the mean of all inputs, over the sum of their
            weights.
    """

    reads_lazily: bool = True
    averages_all: bool = False

    def __init__(
        self,
        name: str,
        pretty_name: str,
        summary: str,
        reference_url: str,
        parameters: Sequence[Parameter],
    ):
        self.summary = summary
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
    def merge_elementwise(self, entries: Entries, settings: Settings, store: Store) -> None:
        """Merge the entries of T deltas place by place, before λ, and store what they become."""

    @abstractmethod
    def matrix_work(self, tensor: TensorInputs) -> Work:
        """Count the operations of merging one of a tensor's matrices."""

    @abstractmethod
    def dense_memory(self, tensor: TensorInputs) -> float:
        """Return the bytes for a tensor with dense inputs, besides blocks, inputs and result."""

    def count_work(self, tensor: TensorInputs) -> Work:
        """Count the operations of merging a tensor."""
        entries = tensor.shape.numel()
        if entries == 0:
            return Work()
        if self.is_elementwise(tensor.shape, tensor.vocabulary, tensor.settings):
            return Work(entries=float(entries * tensor.count))
        return self.matrix_work(tensor).times(tensor.matrices) + Work(entries=float(entries))

    def peak_memory(self, tensor: TensorInputs) -> int:
        """Return the bytes that merging a tensor takes besides the inputs and the result."""
        if self.is_elementwise(tensor.shape, tensor.vocabulary, tensor.settings):
            return BLOCK_BYTES
        if tensor.in_factors:
            return BLOCK_BYTES + FACTORED_BYTES * tensor.shape.numel()
        return int(BLOCK_BYTES + self.dense_memory(tensor))

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

    @torch.no_grad()
    @exact_matmul()
    def merge_group(self, group: TensorGroup, /, **parameters: Any) -> Tensor:
        """Merge one tensor.

        Args:
            group: a base and any number of inputs, of one shape, device and floating dtype.
            parameters: values for the parameters of `spec`.

        Returns:
            A tensor of the base's shape, dtype and device; the base itself if no input differs
            from it.

        Raises:
            MergeError: if an input is not of a floating dtype or holds a NaN or an infinity, no
                decomposition converges, the device has too little memory for the smallest blocks,
                or the result is out of its dtype's range.
        """
        assert group.base is not None  # by the contract
        device, dtype = group.base.tensor.device, group.base.tensor.dtype
        if dtype not in FLOATS:
            raise MergeError(
                f"{self.spec.name}: tensor {group.metadata.name} is of {dtype_name(dtype)}; set "
                "`dtype` to one of float32, bfloat16, float16 and float64, which can be merged."
            )
        group = moved_if_small(group, device)
        assert group.base is not None
        base = stored(group.base.tensor)
        deltas = task_deltas(group)
        if all(delta.is_zero() for delta in deltas):
            return base.to(device)

        settings: Settings = {
            name: value.values_for(group.non_base) if isinstance(value, PerInputValues) else value
            for name, value in parameters.items()
        }
        result = torch.empty_like(base, device=device, memory_format=torch.contiguous_format)
        name, vocabulary = group.metadata.name, group.metadata.vocabulary_axis is not None

        def merge() -> None:
            try:
                self._merge_onto(base, deltas, settings, vocabulary, result)
            except MergeError as error:  # of the inner method, which has no names
                raise MergeError(f"{error.message} This is at tensor {name}.") from error

        try:
            in_blocks_that_fit(merge, name)
        except LinAlgError as error:
            raise MergeError(
                f"{self.spec.name}: the updates of tensor {name} cannot be decomposed: {error}; "
                "look at the inputs' updates there, which must be very large, or so small, below "
                "1e-38, that float32 has no digits for them."
            ) from error
        if not is_finite(result):
            raise MergeError(
                f"{self.spec.name}: merging tensor {name} gave values out of the range of "
                f"{dtype_name(result.dtype)}; lower `lambda`, or set a `dtype` of wider range."
            )
        return result

    def rounded(self, merged: Tensor, dtype: torch.dtype, name: str | None) -> Tensor:
        """Round a merged tensor to the dtype that the recipe has it saved in.

        Args:
            merged: of any dtype.
            dtype: the recipe's ``out_dtype``.
            name: the tensor's, for the message.

        Returns:
            A tensor of `dtype`, `merged` itself if that is its dtype.

        Raises:
            MergeError: if a value is out of the range of `dtype`.
        """
        result = merged.to(dtype)
        if result is not merged and not is_finite(result):
            raise MergeError(
                f"{self.spec.name}: merged tensor {name} has values out of the range of "
                f"{dtype_name(dtype)}, the recipe's `out_dtype`; set `out_dtype: bfloat16`, or "
                "lower `lambda` if no input has such values."
            )
        return result

    def __call__(self, groups: Sequence[TensorGroup], /, **arguments: Any) -> tuple[Tensor, ...]:
        """Merge tensors in memory, as mergekit's `merge_tensors` and `merge_state_dicts` do.

        Args:
            groups: each with a base.
            arguments: as for any of mergekit's methods.

        Raises:
            MergeError: if gradients are recorded and a tensor requires them.
        """
        groups = tuple(groups)
        for entry, name in ((e, g.metadata.name) for g in groups for e in g.entries):
            if torch.is_grad_enabled() and entry.tensor.requires_grad:
                raise MergeError(
                    f"{self.spec.name} does not compute gradients, but tensor {name} of input "
                    f"{entry.id} requires them; merge under `torch.no_grad()`."
                )
        return super().__call__(groups, **arguments)

    def _execute(
        self,
        groups: Sequence[TensorGroup],
        parameters: list[dict[str, Any]],
        options: BatchOptions,
        *,
        input_dtypes: Sequence[torch.dtype | None],
        out_dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, ...]:
        """Merge groups one after the other; refuse what `out_dtype` has no range for."""
        results = []
        for group, values, dtype in zip(groups, parameters, input_dtypes, strict=True):
            (merged,) = super()._execute((group,), [values], options, input_dtypes=[dtype])
            name = group.metadata.name
            results.append(merged if out_dtype is None else self.rounded(merged, out_dtype, name))
        return tuple(results)

    def is_elementwise(self, shape: torch.Size, vocabulary: bool, settings: Settings) -> bool:
        """Whether a tensor is merged entry by entry.

        Args:
            shape: of the tensor.
            vocabulary: whether it has a vocabulary axis.
            settings: the recipe's parameters for it.
        """
        return len(shape) < 2 or (vocabulary and settings["embeddings"] == "elementwise")

    def _merge_onto(
        self,
        base: Tensor,
        deltas: Sequence[TaskDelta],
        settings: Settings,
        vocabulary: bool,
        result: Tensor,
    ) -> None:
        """Write base + λ·merge(D_1 … D_T) to `result`, rounded once to its dtype."""
        scale = settings["lambda"]
        if self.is_elementwise(base.shape, vocabulary, settings):
            entries = DeltaEntries([delta.matrix for delta in deltas])
            self.merge_elementwise(entries, settings, _added_to(base, scale, result))
            return
        matrices = base.shape if base.ndim == 3 else (1, len(base), -1)
        inputs = zip(*(delta.matrices() for delta in deltas), strict=True)
        for before, after, own in zip(
            base.reshape(matrices), result.view(matrices), inputs, strict=True
        ):
            self.merge_matrices(own, settings).add_to(before, scale, out=after)


def _added_to(base: Tensor, scale: float, result: Tensor) -> Store:
    before, after = base.reshape(-1), result.view(-1)

    def store(where: slice | Tensor, values: Tensor) -> None:
        there = where if isinstance(where, slice) else where.to(before.device)
        own = before[there].to(after.device)
        after[where] = torch.add(own, values.flatten(), alpha=scale).to(after.dtype)

    return store
