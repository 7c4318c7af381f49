"""How long a merge takes on an idle machine: its operations, at speeds measured in a second.

The operations are a method's own count. mergekit's own methods are passes over entries alone, at
the speed of a measured merge of a small tensor.

Speeds are measured in CPU time, so that they do not depend on what else the machine does. If it is
busy, they are measured on smaller matrices, because that takes longer then, and in one thread,
because threads that wait for one another use CPU time. What several threads gain is assumed then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
FEW_ENTRIES = 1 << 17
SIDE = 1024
SMALL_SIDE = 384
PARALLEL = {"products": 1.0, "cubes": 0.5, "entries": 0.5}
"""Share of each kind of work that several threads do together (assumed if the machine is busy)."""
BUSY = 1.5
"""A machine is busy if work takes at least this many times as long as its CPU time."""
PATIENCE = 0.5
"""Seconds after which some work is not timed again."""
DISK_BYTES = 5e8
"""Bytes that are read or written in a second by a disk that is not cached (assumed)."""
COPY_SECONDS = 4.0
"""Seconds that mergekit takes for a merged copy, besides reading and writing it (assumed)."""


@dataclass(frozen=True)
class Speeds:
    """What this machine does in a second when it is idle.

    Attributes:
        products: multiplications in float32 matrix products.
        cubes: n³ of eigendecompositions of order n in float64.
        entries: entries of one input that the method merges one by one.
    """

    products: float
    cubes: float
    entries: float


def estimate_seconds(work: Work, speeds: Speeds, moved: int, copies: int) -> float:
    """Estimate how long a merge takes on an idle machine, without the start of Python.

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


def measure_speeds(method: MergeMethod, inputs: int, threads: int | None = None) -> Speeds:
    """Measure this machine's speeds, in about a second the first time.

    Args:
        method: the method whose speed in merging entries is measured.
        inputs: the number of inputs that it merges, without a base.
        threads: that the work is done in; None for as many as PyTorch takes.
    """
    with _in_threads(threads or torch.get_num_threads()):
        return _measure_speeds(method, inputs)


def _measure_speeds(method: MergeMethod, inputs: int) -> Speeds:
    products, cubes, busy = _matrix_speeds(torch.get_num_threads())
    count = FEW_ENTRIES if busy else ENTRIES
    others = int(method.spec.contract.base in (BasePolicy.REQUIRED, BasePolicy.OPTIONAL))
    vectors = [torch.randn(count) for _ in range(inputs + others)]
    group = TensorGroup.from_tensors(vectors, base_index=0 if others else None)
    parameters = _parameters(method, inputs, others)
    with _in_threads(1) if busy else nullcontext():
        taken = _time(lambda: method((group,), parameters=parameters), times=1)
    gain = _gain("entries") if busy else 1.0
    return Speeds(products, cubes, gain * inputs * count / taken.idle)


@cache
def _matrix_speeds(threads: int) -> tuple[float, float, bool]:
    """Measure multiplications in a product, and n³ in an eigendecomposition, per second.

    Args:
        threads: that PyTorch takes.

    Returns:
        The two speeds, and whether the machine is busy.
    """
    with _in_threads(1):
        product, eigen = _matrix_times(SMALL_SIDE)
    if product.is_busy or eigen.is_busy:
        products, cubes = SMALL_SIDE**3 / product.idle, SMALL_SIDE**3 / eigen.idle
        return _gain("products") * products, _gain("cubes") * cubes, True
    product, eigen = _matrix_times(SIDE)
    return SIDE**3 / product.idle, SIDE**3 / eigen.idle, False


def _gain(kind: str) -> float:
    """Return how many times as fast some work is in all threads as in one (Amdahl's law)."""
    share = PARALLEL[kind]
    return 1 / (1 - share + share / torch.get_num_threads())


@contextmanager
def _in_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _matrix_times(side: int) -> tuple[Taken, Taken]:
    a = torch.randn(side, side)
    gram = a.double() @ a.double().T
    return _time(lambda: a @ a), _time(lambda: torch.linalg.eigh(gram))


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


@dataclass(frozen=True)
class Taken:
    """How long some work took.

    Attributes:
        idle: seconds that it would take on an idle machine.
        wall: seconds that it took.
    """

    idle: float
    wall: float

    @property
    def is_busy(self) -> bool:
        """Whether other programs took much of the time."""
        return self.wall >= BUSY * self.idle


def _time(work: Callable[[], object], times: int = 3) -> Taken:
    """Time some work after one run that is not timed, and return the shortest times.

    Work that takes more than `PATIENCE` is timed less often, and at least once.
    """
    start = time.perf_counter()
    taken = [_time_once(work)]
    while len(taken) <= times and time.perf_counter() - start < PATIENCE:
        taken.append(_time_once(work))
    timed = taken[1:] or taken
    return Taken(min(each.idle for each in timed), min(each.wall for each in timed))


def _time_once(work: Callable[[], object]) -> Taken:
    wall, own, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
    work()
    # This thread does its share of what runs in several threads, and all that does not. A library
    # whose threads leave it waiting is as fast as all of them together, at best.
    own = time.thread_time() - own
    all_threads = time.process_time() - all_threads
    idle = max(own, all_threads / torch.get_num_threads(), 1e-9)
    return Taken(idle, time.perf_counter() - wall)
