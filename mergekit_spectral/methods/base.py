"""Define `SpectralMethod`, the base class of all methods.

From a tensor group to deltas and back to a tensor: checks, the merge, and its default costs.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Protocol

import torch
from mergekit.merge_methods.base import (
    BasePolicy,
    BatchOptions,
    GroupMergeMethod,
    InputContract,
    MergeMethodSpec,
    TensorGroup,
)
from torch import Tensor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.costs import (
    BLOCK_BYTES,
    FACTORED_BYTES,
    GPU_EIGEN_BYTES,
    TensorInputs,
    Work,
    gram_memory,
    joint_work,
)
from mergekit_spectral.methods.parameters import (
    EMBEDDINGS,
    LAMBDA,
    Parameter,
    SearchRange,
    for_method,
    most_directions,
)
from mergekit_spectral.methods.tally import add_merged
from mergekit_spectral.methods.task_deltas import (
    TaskDelta,
    base_and_deltas,
    is_finite,
    is_stack,
)
from mergekit_spectral.spectral import (
    FLOATS,
    Delta,
    DeltaEntries,
    Entries,
    JointDecomposition,
    LinAlgError,
    Output,
    above_tolerance,
    dtype_name,
    exact_matmul,
    in_blocks_that_fit,
    joint_decomposition,
    leading,
)

LOG = logging.getLogger(__name__)

Settings = Mapping[str, Any]
"""A recipe's parameters for one tensor; those set per input are lists in the deltas' order."""


class MergedOutput(Output, Protocol):
    """Takes the merged delta of one tensor, place by place or matrix by matrix."""

    def write_matrix(self, number: int, merged: Delta) -> None:
        """Take a merged matrix.

        Args:
            number: 0, or for a tensor of three axes the index of the slice over the first.
            merged: [out, in].
        """


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
        compresses_inputs: whether `mergekit-spectral adapter --rank` compresses the inputs before
            the merge, not the merged update after it. For methods that make singular values more
            equal, so that the norm of the merged update is spread over many directions.

    Args:
        name: in recipes.
        pretty_name: as its authors write it.
        summary: what it does, in a line.
        reference_url: where it is published.
        parameters: what a recipe can set. Every method has `LAMBDA` and `EMBEDDINGS`; they are
            added at the end if they are not listed.
    """

    reads_lazily: bool = True
    averages_all: bool = False
    compresses_inputs: bool = False

    def __init__(
        self,
        name: str,
        pretty_name: str,
        summary: str,
        reference_url: str,
        parameters: Sequence[Parameter],
    ):
        self.summary = summary
        listed = {parameter.name for parameter in parameters}
        common = [each for each in (LAMBDA, EMBEDDINGS) if each.name not in listed]
        self.spec = MergeMethodSpec(
            name=name,
            pretty_name=pretty_name,
            reference_url=reference_url,
            parameters=for_method(name, [*parameters, *common]),
            contract=InputContract(base=BasePolicy.REQUIRED),
        )

    @abstractmethod
    def merge_matrices(self, deltas: Sequence[Delta], settings: Any) -> Delta:
        """Merge T deltas into one, before λ.

        Args:
            deltas: of one shape, [out, in].
            settings: the method's parameters, which each method declares as a `TypedDict`.
        """

    @abstractmethod
    def merge_elementwise(self, entries: Entries, settings: Any, output: Output) -> None:
        """Merge the entries of T deltas place by place, before λ.

        Args:
            entries: of T inputs.
            settings: as for `merge_matrices`.
            output: takes the result.
        """

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
                decomposition converges, the device has too little memory for the result, or the
                result is out of its dtype's range.
        """
        assert group.base is not None  # by the contract
        device, name = group.base.tensor.device, group.metadata.name
        if group.base.tensor.dtype not in FLOATS:
            raise MergeError(
                f"{self.spec.name}: tensor {name} is of {dtype_name(group.base.tensor.dtype)}; set "
                "`dtype` to one of float32, bfloat16, float16 and float64, which can be merged."
            )
        for place in dict.fromkeys((device, torch.device("cpu"))):
            if place != device:
                _warn_once("on the CPU", name)
            try:
                return self._merge_on(place, group, parameters).to(device)
            except torch.OutOfMemoryError:
                # Nothing else here: the traceback keeps alive what the attempt allocated.
                pass
        raise MergeError(
            f"The device has too little memory for the merged tensor {name}; merge without --cuda, "
            "or on a device with more memory."
        )

    def _merge_on(
        self, device: torch.device, group: TensorGroup, parameters: Mapping[str, Any]
    ) -> Tensor:
        """Merge one tensor on a device, in smaller blocks where its memory does not suffice."""
        entries = tuple(replace(each, tensor=each.tensor.to(device)) for each in group.entries)
        group = TensorGroup(entries, group.metadata)
        base, deltas = base_and_deltas(group)
        if all(delta.is_zero() for delta in deltas):
            return base

        result = torch.empty_like(base, device=device, memory_format=torch.contiguous_format)
        name, vocabulary = group.metadata.name, group.metadata.vocabulary_axis is not None
        inputs = [entry.id for entry in group.non_base]
        output = _OntoBase(base, parameters["lambda"], result)

        def merge() -> None:
            self.merge_deltas(name, deltas, inputs, parameters, vocabulary, output)

        try:
            in_blocks_that_fit(merge, partial(_warn_once, "in smaller blocks", name))
        except LinAlgError as error:
            raise MergeError(
                f"{self.spec.name}: the updates of tensor {name} cannot be decomposed: {error}; "
                "check the inputs' updates of this tensor for very large values, and for values "
                "below 1e-38, which float32 cannot represent exactly."
            ) from error
        if not is_finite(result):
            advice = "set `dtype: bfloat16`, or " if result.dtype == torch.float16 else ""
            raise MergeError(
                f"{self.spec.name}: merging tensor {name} gave values out of the range of "
                f"{dtype_name(result.dtype)}; {advice}lower `lambda`."
            )
        return result

    def merge_deltas(
        self,
        name: str | None,
        deltas: Sequence[TaskDelta],
        inputs: Sequence[Hashable],
        parameters: Mapping[str, Any],
        vocabulary: bool,
        output: MergedOutput,
    ) -> None:
        """Merge the deltas of one tensor, before λ.

        Args:
            name: the tensor's, for messages.
            deltas: of T inputs, of one shape, not all zero.
            inputs: what `parameters` calls these T inputs.
            parameters: values by the parameter's name; of a parameter that is set for each input,
                a mapping from inputs to values.
            vocabulary: whether the tensor has a vocabulary axis.
            output: takes the merged delta.

        Raises:
            LinAlgError: if no decomposition converges.
            MergeError: if an inner method refuses the deltas.
        """
        settings = dict(parameters)
        for parameter in self.spec.input_parameters:
            values = parameters[parameter.name]
            settings[parameter.name] = [values[each] for each in inputs]
        try:
            if self.is_elementwise(deltas[0].shape, vocabulary, settings):
                entries = DeltaEntries([delta.matrix for delta in deltas])
                self.merge_elementwise(entries, settings, output)
                add_merged(name, matrices=0)
                return
            matrices = 0
            for own in zip(*(delta.matrices() for delta in deltas), strict=True):
                output.write_matrix(matrices, self.merge_matrices(own, settings))
                matrices += 1
            add_merged(name, matrices)
        except MergeError as error:  # of the inner method, which does not know the tensor
            raise MergeError(f"{error.message} The tensor is {name}.") from error

    def is_elementwise(self, shape: torch.Size, vocabulary: bool, settings: Settings) -> bool:
        """Whether a tensor is merged entry by entry.

        Args:
            shape: of the tensor.
            vocabulary: whether it has a vocabulary axis.
            settings: the recipe's parameters for it.
        """
        return len(shape) < 2 or (vocabulary and settings["embeddings"] == "elementwise")

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

    def evolved_parameters(self) -> dict[str, SearchRange]:
        """Return what `mergekit-evolve` varies for each input besides ``weight``, and how far.

        By default, these are all numbers with a lower bound that a recipe can set for each input.
        """
        own = [each for each in self.spec.input_parameters if isinstance(each, Parameter)]
        ranges = {each.name: each.search_range() for each in own if each.name != "weight"}
        return {name: values for name, values in ranges.items() if values is not None}

    def matrix_work(self, tensor: TensorInputs) -> Work:
        """Count the operations of merging one of a tensor's matrices.

        By default they are those of a merge in the joint basis.
        """
        side, other = shared_lengths(tensor)
        most = most_directions(tensor.settings.get("rank"), side)
        return joint_work(side, other, tensor.known_ranks, tensor.count, most=most)

    def dense_memory(self, tensor: TensorInputs) -> float:
        """Return the bytes for a tensor with dense inputs, besides blocks, inputs and result.

        By default they are those of a joint decomposition.
        """
        return gram_memory(tensor, shared_lengths(tensor)[0], kept_share(tensor))

    def count_work(self, tensor: TensorInputs) -> Work:
        """Count the operations of merging a tensor."""
        entries = tensor.shape.numel()
        if entries == 0 or tensor.is_unchanged:
            return Work()
        if self.is_elementwise(tensor.shape, tensor.vocabulary, tensor.settings):
            return Work(entries=float(entries * tensor.count))
        return self.matrix_work(tensor).times(tensor.matrices) + Work(entries=float(entries))

    def peak_memory(self, tensor: TensorInputs) -> int:
        """Return the bytes that merging a tensor takes besides the inputs and the result."""
        if tensor.is_unchanged:
            return 0
        if self.is_elementwise(tensor.shape, tensor.vocabulary, tensor.settings):
            return BLOCK_BYTES
        if tensor.in_factors:
            return BLOCK_BYTES + FACTORED_BYTES * tensor.shape.numel()
        side, _ = shared_lengths(tensor)
        # The CPU holds less while it decomposes a Gram matrix than it does later.
        decomposing = GPU_EIGEN_BYTES * side**2 if tensor.on_gpu else 0.0
        return int(BLOCK_BYTES + max(decomposing, self.dense_memory(tensor)))


class _OntoBase:
    """Writes base + λ·Δ for a merged delta Δ, rounded once to the result's dtype.

    Args:
        base: the base's tensor.
        scale: λ.
        result: a contiguous tensor of the base's shape.
    """

    def __init__(self, base: Tensor, scale: float, result: Tensor):
        self._base = base
        self._scale = scale
        self._result = result

    def write(self, places: slice | Tensor, values: Tensor) -> None:
        before, after = self._base.reshape(-1), self._result.view(-1)
        there = places if isinstance(places, slice) else places.to(before.device)
        own = before[there].to(after.device)
        after[places] = torch.add(own, values.flatten(), alpha=self._scale).to(after.dtype)

    def write_matrix(self, number: int, merged: Delta) -> None:
        shape = self._base.shape if is_stack(self._base.shape) else (1, len(self._base), -1)
        before, after = self._base.reshape(shape), self._result.view(shape)
        merged.add_to(before[number], self._scale, out=after[number])


_warned: set[str] = set()


def _warn_once(how: str, name: str | None) -> None:
    """Log how the merge continues, at the first tensor for which memory does not suffice."""
    if how not in _warned:
        _warned.add(how)
        LOG.warning(
            "The device is out of memory at tensor %s; the merge continues %s, there and wherever "
            "it is needed.",
            name,
            how,
        )


MatrixMerge = Callable[[Any, Sequence[Delta], Any], Delta]


def along_shared_side(merge_horizontal: MatrixMerge) -> MatrixMerge:
    """Make a merge along the left basis follow the recipe's ``direction``.

    A vertical merge is a horizontal one of the transposes, transposed back.
    """

    @wraps(merge_horizontal)
    def merge(self: Any, deltas: Sequence[Delta], settings: Any) -> Delta:
        if shared_side(settings["direction"], deltas[0].shape) == "horizontal":
            return merge_horizontal(self, deltas, settings)
        return merge_horizontal(self, [delta.T for delta in deltas], settings).T

    return merge


def joint_basis(deltas: Sequence[Delta], settings: Any) -> JointDecomposition:
    """Decompose deltas jointly, and keep what the recipe's ``rank_tolerance`` and ``rank`` say.

    Args:
        deltas: T deltas of one shape [out, in], which share the left basis.
        settings: the method's parameters.
    """
    tolerance, side = settings["rank_tolerance"], deltas[0].shape[0]
    limit = most_directions(settings["rank"], side)
    rule = leading(limit, above_tolerance(tolerance))
    return joint_decomposition(deltas, rule, resolution=tolerance, few=4 * limit <= side)


def shared_side(direction: str, shape: tuple[int, int]) -> str:
    """Resolve ``auto``: the direction with the smaller shared side, horizontal if equal.

    Args:
        direction: horizontal, where the inputs share the left basis; vertical, where they share the
            right one; or auto.
        shape: (out, in).
    """
    if direction != "auto":
        return direction
    out_features, in_features = shape
    return "horizontal" if out_features <= in_features else "vertical"


def kept_share(tensor: TensorInputs) -> float:
    """Return the largest share of its joint directions that a tensor with dense inputs keeps."""
    side, _ = shared_lengths(tensor)
    return min(1.0, most_directions(tensor.settings.get("rank"), side) / max(1, side))


def shared_lengths(tensor: TensorInputs) -> tuple[int, int]:
    """Return the lengths of the side that is decomposed, and of the other one.

    It is the side that the inputs share, or the smaller one if the method has no direction.
    """
    out_features, in_features = tensor.matrix_shape
    direction = tensor.settings.get("direction", "auto")
    if shared_side(direction, tensor.matrix_shape) == "horizontal":
        return out_features, in_features
    return in_features, out_features
