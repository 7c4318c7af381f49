"""What merging one tensor costs: the units, and the arithmetic that methods share.

Each method's file says what the method itself costs. Operations are counted from the algorithms.
Bytes are fitted to the peak memory that `benchmarks/merge_speed.py` measures on 2048×2048 tensors
of four inputs; `benchmarks/check_estimates.py` compares both to whole merges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from mergekit_spectral.methods.task_deltas import is_stack

BLOCK_BYTES = 48 * 2**20
"""Bytes that our methods hold in blocks of a fixed size."""
DENSE_BYTES = 4.0
"""Bytes for each entry of a tensor with dense inputs (fitted)."""
FACTORED_BYTES = 2
"""Bytes for each entry of a tensor whose inputs are all adapters (fitted)."""
GRAM_BYTES = 8
"""Bytes for each entry of a Gram matrix: float64."""
GRAM_INPUT_BYTES = 2
"""Bytes for each entry of a Gram matrix and each input (fitted)."""
TRIPLES_BYTES = 8.0
"""Bytes for each entry of a matrix whose singular triples are all kept: the longer side's vectors.

They are in float64. How many triples are kept is known only after the decomposition, so estimates
are of all. With half of them, a merge takes about half of this memory.
"""
TRIPLES_GRAM_BYTES = 20.0
"""Bytes for each entry of its Gram matrix, and of the shorter side's vectors (fitted)."""
GPU_EIGEN_BYTES = 48.0
"""Bytes for each entry of a Gram matrix while a GPU decomposes it (fitted on an H100)."""
EXACT = 2.0
"""Multiplications in float32 that take as long as one in float64."""
THIN_STEPS = 8.0
"""Products of a thin matrix with itself that its QR factorization takes as long as (fitted)."""
FEW = 0.5
"""The share of an eigendecomposition's time that less than half of its vectors take (fitted)."""
PASSES = 2
"""Passes over an entry that is pruned and merged, where merging alone takes one."""


@dataclass(frozen=True)
class Work:
    """Numbers of operations.

    Attributes:
        decompositions: matrices that are decomposed.
        products: multiplications in matrix products.
        cubes: the sum of n³ over eigendecompositions of order n.
        entries: entries of all inputs that are merged one by one.
    """

    decompositions: float = 0.0
    products: float = 0.0
    cubes: float = 0.0
    entries: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Return the sum, for work that is done one after the other."""
        return Work(
            self.decompositions + other.decompositions,
            self.products + other.products,
            self.cubes + other.cubes,
            self.entries + other.entries,
        )

    def times(self, count: float) -> Work:
        """Return the work of doing this `count` times."""
        return Work(
            count * self.decompositions,
            count * self.products,
            count * self.cubes,
            count * self.entries,
        )


@dataclass(frozen=True)
class TensorInputs:
    """One tensor and its inputs, as far as costs depend on them.

    Attributes:
        shape: of the tensor.
        ranks: by input, without the base, the rank of an adapter's update, 0 if the adapter leaves
            the tensor as it is; None for a dense input.
        in_factors: whether all inputs are read in an adapter's factors, of a known rank or not.
        itemsize: bytes of an entry in the dtype that is merged.
        vocabulary: whether the tensor has a vocabulary axis.
        settings: the method's shared parameters.
        on_gpu: whether a GPU merges it.
    """

    shape: torch.Size
    ranks: tuple[int | None, ...]
    in_factors: bool
    itemsize: int
    vocabulary: bool
    settings: Mapping[str, Any]
    on_gpu: bool = False

    @property
    def count(self) -> int:
        """The number of inputs, T."""
        return len(self.ranks)

    @property
    def matrices(self) -> int:
        """The number of matrices that are merged one after the other."""
        return self.shape[0] if is_stack(self.shape) else 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The shape of one of the matrices, [out, in]."""
        if is_stack(self.shape):
            return self.shape[1], self.shape[2]
        return self.shape[0], self.shape[1:].numel()

    @property
    def is_unchanged(self) -> bool:
        """Whether all inputs are adapters that leave the tensor as it is."""
        return all(rank == 0 for rank in self.ranks)

    @property
    def known_ranks(self) -> list[int] | None:
        """The ranks if all inputs have one, else None: then all are merged as dense ones."""
        ranks = [rank for rank in self.ranks if rank is not None]
        return ranks if len(ranks) == self.count else None


class MethodCosts(Protocol):
    """What a merge method says about itself; see `SpectralMethod`."""

    @property
    def reads_lazily(self) -> bool:
        """Whether adapters are read in factors, and dense inputs are left in main memory."""

    @property
    def averages_all(self) -> bool:
        """Whether an entry's result is the mean of all inputs, over the sum of their weights."""

    def count_work(self, tensor: TensorInputs) -> Work:
        """Count the operations of merging a tensor."""

    def peak_memory(self, tensor: TensorInputs) -> int:
        """Return the bytes that merging a tensor takes besides the inputs and the result."""


def joint_work(
    side: int,
    other: int,
    ranks: Sequence[int] | None,
    count: int,
    passes: int = PASSES,
    most: int | None = None,
) -> Work:
    """Count the operations of a merge in the joint basis of T inputs.

    A Gram matrix of all inputs is decomposed; each input is projected on the basis, its coordinates
    are merged, and the result is multiplied out.

    Args:
        side: length of the side that the inputs share.
        other: length of the other side.
        ranks: of the inputs' factors, or None if they are dense.
        count: T.
        passes: over each coordinate, where they are pruned and merged one by one.
        most: how many directions are kept at most; None if all are.
    """
    directions = side if ranks is None else sum(ranks)
    kept = directions if most is None else min(directions, most)
    if ranks is not None:
        # Two Gram matrices, one of each side's factors.
        gram, cubes = (side + other) * directions**2, 2.0 * directions**3
        projections = side * other * kept
    else:
        # A float64 product runs at half the speed, but a Gram matrix is symmetric.
        gram = side * side * other * count
        cubes = side**3 * (FEW if 4 * kept <= side else 1.0)
        projections = side * other * kept * count
    coordinates = kept * other * count
    result = side * other * min(kept, side)
    return Work(1.0, float(gram + projections + result), cubes, float(passes * coordinates))


def separate_work(side: int, other: int, ranks: Sequence[int] | None, count: int) -> Work:
    """Count the operations of decomposing T inputs one by one, and adding what is kept of them.

    Args:
        side: length of the shorter side.
        other: length of the longer side.
        ranks: of the inputs' factors, or None if they are dense.
        count: T.
    """
    if ranks is not None:
        directions = sum(ranks)
        gram = (side + other) * sum(rank**2 for rank in ranks)
        cubes = float(sum(rank**3 for rank in ranks))
        projections = side * other * directions
        coordinates = directions * other
    else:
        directions = side
        gram, cubes = side * side * other * count, float(side**3 * count)
        projections = side * other * directions * count
        coordinates = side * other * count
    result = side * other * min(directions, side)
    products = float(gram + projections + result)
    return Work(float(count), products, cubes, float(PASSES * coordinates))


def triples_work(side: int, other: int, rank: int | None, kept: int) -> Work:
    """Count the operations of finding the leading singular triples of one delta, in float64.

    Args:
        side: length of the shorter side.
        other: length of the longer side.
        rank: of the delta's factors, or None if it is dense.
        kept: how many triples are kept, if it is dense.
    """
    if rank is not None:
        factored = EXACT * THIN_STEPS * (side + other) * rank**2
        return Work(1.0, factored, float(rank**3))
    gram = side * side * other  # in float64, but only half of it is computed
    vectors = EXACT * side * other * kept
    eigen = side**3 * (FEW if 2 * kept <= side else 1.0)
    return Work(1.0, float(gram + vectors), float(eigen))


def gram_memory(tensor: TensorInputs, side: int, kept: float = 1.0) -> float:
    """Return the bytes for decomposing a tensor's dense inputs through Gram matrices.

    Blocks, inputs and result are not counted.

    Args:
        tensor: one or more matrices, merged one after the other.
        side: the order of each Gram matrix.
        kept: the share of the directions that are kept.
    """
    gram = side**2 * (GRAM_BYTES + kept * GRAM_INPUT_BYTES * tensor.count)
    return kept * DENSE_BYTES * tensor.shape.numel() + gram


def triples_memory(tensor: TensorInputs, held: float = 1.0) -> float:
    """Return the bytes for the singular triples of a tensor's dense inputs.

    Blocks, inputs and result are not counted.

    Args:
        tensor: one or more matrices, merged one after the other.
        held: how many times as many vectors are held at once as one matrix has.
    """
    side, other = sorted(tensor.matrix_shape)
    vectors = TRIPLES_BYTES * side * other + TRIPLES_GRAM_BYTES * side**2
    return DENSE_BYTES * tensor.shape.numel() + held * vectors
