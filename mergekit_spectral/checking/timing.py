"""How long a merge takes: its operations, at speeds measured in a second.

The operations are a method's own count. mergekit's own methods are passes over entries alone, at
the speed of a measured merge of a small tensor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from mergekit.merge_methods.base import (
    MISSING,
    BasePolicy,
    MergeMethod,
    ParameterScope,
    TensorGroup,
)

from mergekit_spectral.methods.costs import Work

ENTRIES = 1 << 19
SIDE = 1024
DISK_BYTES = 5e8
"""Bytes that are read or written in a second by a disk that is not cached (assumed)."""
COPY_SECONDS = 4.0
"""Seconds that mergekit takes for a merged copy, besides reading and writing it (assumed)."""


@dataclass(frozen=True)
class Speeds:
    """What this machine does in a second.

    Attributes:
        products: multiplications in float32 matrix products.
        cubes: n³ of eigendecompositions of order n in float64.
        entries: entries of one input that the method merges one by one.
    """

    products: float
    cubes: float
    entries: float


def estimate_seconds(work: Work, speeds: Speeds, moved: int, copies: int) -> float:
    """Estimate how long a merge takes, without the start of Python.

    Args:
        work: its operations.
        speeds: this machine's.
        moved: bytes that are read and written.
        copies: LoRA inputs that are first merged into copies of their bases.
    """
    compute = (
        work.products / speeds.products + work.cubes / speeds.cubes + work.entries / speeds.entries
    )
    return compute + moved / DISK_BYTES + copies * COPY_SECONDS


def measure_speeds(method: MergeMethod, inputs: int) -> Speeds:
    """Measure this machine's speeds, in about a second the first time.

    Args:
        method: the method whose speed in merging entries is measured.
        inputs: the number of inputs that it merges, without a base.
    """
    others = int(method.spec.contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL))
    vectors = [torch.randn(ENTRIES) for _ in range(inputs + others)]
    group = TensorGroup.from_tensors(vectors, base_index=0 if others else None)
    parameters = _parameters(method, inputs, others)
    products, cubes = _matrix_speeds()
    entries = inputs * ENTRIES / _time(lambda: method((group,), parameters=parameters), times=1)
    return Speeds(products, cubes, entries)


@cache
def _matrix_speeds() -> tuple[float, float]:
    """Measure multiplications in a product, and n³ in an eigendecomposition, per second."""
    a = torch.randn(SIDE, SIDE)
    gram = a.double() @ a.double().T
    return (
        SIDE**3 / _time(lambda: a @ a),
        SIDE**3 / _time(lambda: torch.linalg.eigh(gram)),
    )


def _parameters(method: MergeMethod, inputs: int, others: int) -> dict[str, object]:
    """Return values with which no work is skipped; those of inputs are lists."""
    values: dict[str, object] = {}
    for parameter in method.spec.parameters:
        value = 0.5 if parameter.name == "density" else parameter.default
        value = 1.0 if value is MISSING else value
        counts = {ParameterScope.NON_BASE: inputs, ParameterScope.INPUT: inputs + others}
        count = counts.get(parameter.scope)
        values[parameter.name] = value if count is None else [value] * count
    return values


def _time(work: Callable[[], object], times: int = 3) -> float:
    """Return the shortest time of some work, in seconds, after one run that is not timed."""
    work()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
