"""How long a merge takes: operations counted over its plan, at speeds measured in a second.

The operations are those of the methods' files: a Gram matrix, its eigendecomposition, projections,
and passes over entries. mergekit's own methods are passes over entries alone, each a measured
merge of a small tensor.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from mergekit.common import ModelReference
from mergekit.merge_methods.base import (
    MISSING,
    BasePolicy,
    MergeMethod,
    ParameterScope,
    TensorGroup,
)

from mergekit_spectral.checking.memory import is_factored, shared_length
from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.methods import STAR, SpectralMethod

ENTRIES = 1 << 19
SIDE = 1024
DISK = 5e8
"""Bytes that are read or written in a second, as of a disk that is not cached: a guess."""
COPY = 4.0
"""Seconds that mergekit takes to make a merged copy, besides reading and writing it: a guess."""


@dataclass(frozen=True)
class Speeds:
    """What this machine does in a second.

    Attributes:
        products: multiplications in float32 matrix products.
        cubes: n³ of eigendecompositions of order n in float64.
        entries: of one input that the method merges place by place.
    """

    products: float
    cubes: float
    entries: float


@dataclass(frozen=True)
class Work:
    """What one merge does, in numbers of operations.

    Attributes:
        decompositions: how many matrices are decomposed.
        products: multiplications in matrix products.
        cubes: n³ of eigendecompositions of order n.
        entries: of all inputs, merged place by place.
        bytes: read and written.
    """

    decompositions: int
    products: float
    cubes: float
    entries: float
    bytes: int


def work_of(merge: PlannedMerge, moved: int) -> Work:
    """Count the operations of a merge.

    Args:
        merge: as planned.
        moved: bytes that are read and written.
    """
    total: Counter[str] = Counter()
    for tensor in merge.tensors:
        there = {m: value for m, value in tensor.inputs.items() if value is not None}
        if there:
            shape = next(iter(there.values())).shape
            total.update(_operations(merge, tensor, shape))
    return Work(
        int(total["decompositions"]),
        total["products"],
        total["cubes"],
        total["entries"],
        moved,
    )


def merged_inputs(method: MergeMethod, tensor: PlannedTensor) -> list[ModelReference]:
    """Return the inputs of a tensor, without the base if that is not one of them."""
    alike = method.spec.contract.base == BasePolicy.IGNORED
    there = (model for model, value in tensor.inputs.items() if value is not None)
    return [model for model in there if alike or model != tensor.base_model]


def seconds(work: Work, speeds: Speeds, startup: float, copies: int) -> float:
    """Return how long a merge takes.

    Args:
        work: that it does.
        speeds: of this machine.
        startup: seconds until Python has mergekit imported.
        copies: merged copies of LoRA inputs that have to be made first.
    """
    compute = (
        work.products / speeds.products + work.cubes / speeds.cubes + work.entries / speeds.entries
    )
    return startup + compute + work.bytes / DISK + copies * COPY


def measure(method: MergeMethod, inputs: int) -> Speeds:
    """Measure this machine's speeds, in about a second the first time.

    Args:
        method: whose speed in merging entries is measured.
        inputs: that it merges at a time, besides a base.
    """
    others = int(method.spec.contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL))
    vectors = [torch.randn(ENTRIES) for _ in range(inputs + others)]
    group = TensorGroup.from_tensors(vectors, base_index=0 if others else None)
    parameters = _parameters(method, inputs, others)
    products, cubes = _matrix_speeds()
    entries = inputs * ENTRIES / _taken(lambda: method((group,), parameters=parameters), times=1)
    return Speeds(products, cubes, entries)


@cache
def _matrix_speeds() -> tuple[float, float]:
    """Measure multiplications of a product and n³ of an eigendecomposition a second."""
    a = torch.randn(SIDE, SIDE)
    gram = a.double() @ a.double().T
    return (
        SIDE**3 / _taken(lambda: a @ a),
        SIDE**3 / _taken(lambda: torch.linalg.eigh(gram)),
    )


def _operations(merge: PlannedMerge, tensor: PlannedTensor, shape: torch.Size) -> dict[str, float]:
    method = merge.method
    inputs = merged_inputs(method, tensor)
    count = shape.numel()
    if count == 0:
        return {}
    if not isinstance(method, SpectralMethod) or method.is_elementwise(
        shape, tensor.vocabulary, dict(tensor.shared)
    ):
        return {"entries": float(count * len(inputs))}
    stack = shape[0] if len(shape) == 3 else 1
    side = shared_length(shape, tensor.shared)
    other = count // stack // side
    ranks = [_rank(merge.models[m], tensor.names[m], method) for m in inputs]
    separate = isinstance(method, STAR)
    if all(ranks):
        directions = sum(rank or 0 for rank in ranks)
        grams = (side + other) * sum((rank or 0) ** 2 for rank in ranks if separate)
        grams += 0 if separate else (side + other) * directions**2
        cubes = float(sum((r or 0) ** 3 for r in ranks) if separate else 2 * directions**3)
        coordinates = directions * other * (1 if separate else len(ranks))
    else:
        directions = side
        # In float64, at half the speed, but half of a symmetric matrix.
        grams = side * side * other * len(inputs)
        cubes = float(side**3 * (len(inputs) if separate else 1))
        coordinates = count // stack * len(inputs)
    products = grams + side * other * directions * (1 if all(ranks) else len(inputs))
    products += count // stack * min(directions, side)
    return {
        "decompositions": float(stack * (len(inputs) if separate else 1)),
        "products": float(stack * products),
        "cubes": stack * cubes,
        # Pruned and merged, which is about twice what it takes to merge them.
        "entries": float(2 * stack * coordinates + count),
    }


def _rank(model: CheckedModel, name: str, method: MergeMethod) -> int | None:
    """Return the rank of an adapter's update, or None of one that is not in factors."""
    if model.adapter is None or not is_factored(model, name, method):
        return None
    return getattr(model.adapter.updates[name], "rank", None)


def _parameters(method: MergeMethod, inputs: int, others: int) -> dict[str, object]:
    """Return values under which nothing is skipped: those of inputs as lists."""
    values: dict[str, object] = {}
    for parameter in method.spec.parameters:
        value = 0.5 if parameter.name == "density" else parameter.default
        value = 1.0 if value is MISSING else value
        counts = {ParameterScope.NON_BASE: inputs, ParameterScope.INPUT: inputs + others}
        count = counts.get(parameter.scope)
        values[parameter.name] = value if count is None else [value] * count
    return values


def _taken(work: Callable[[], object], times: int = 3) -> float:
    """Return the seconds that something takes, at best, after once that does not count."""
    work()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
