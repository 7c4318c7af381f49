"""The precision that numbers are computed in, and how many are computed at a time.

Singular vectors of real task deltas turn with rounding, because neighbouring singular values lie
close. So they are computed in float64 and used in the *working dtype*: float32, or float64 where
the inputs are float64.

Deltas, coordinates and merged entries are computed block by block, so that little memory is needed
beside the inputs. Where a device runs out of memory all the same, `in_blocks_that_fit` continues
with smaller blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

TIE = 1e-9
"""Relative size below which a difference is rounding noise and decides nothing.

It is far above the noise of float64 sums and far below any difference that means something.
Magnitudes that differ by less than this share of a threshold are equal to the threshold and are
kept; votes that cancel to this share of their sum elect no sign; a coordinate below this share of
its column's length is zero; a singular value that exceeds a limit by less does not exceed it.
"""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of the weights that can be merged."""


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name as a recipe has it, such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which singular vectors made from inputs of `dtype` are used."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rounding(dtype: torch.dtype) -> float:
    """Return the share of an input's norm that rounding leaves where there should be zeros.

    It leaves up to about 13 eps in a row of coordinates.
    """
    return 32 * torch.finfo(working_dtype(dtype)).eps


_SIDE_OF_THREADS = 2048


def threads_compete(side: int) -> bool:
    """Whether SciPy's BLAS and LAPACK are slower than PyTorch's for a matrix of this side, on CPUs.

    Both have threads of their own, which wait busily after each call and take cores from the
    others. With two threads, merges of weights of 1536x576 take 1.4 times as long through SciPy; at
    2048 rows, and with one thread, SciPy's routines are the faster ones.
    """
    return side < _SIDE_OF_THREADS and torch.get_num_threads() > 1


def has_float64(device: torch.device) -> bool:
    """Whether a device has float64 and LAPACK, as the CPU and CUDA do."""
    return device.type in ("cpu", "cuda")


def in_float64(matrix: Tensor) -> Tensor:
    """Return a matrix in float64, on a device that has it."""
    return (matrix if has_float64(matrix.device) else matrix.cpu()).double()


_lock = threading.Lock()
_depth = 0
_saved: list[str] = []


@contextmanager
def exact_matmul() -> Iterator[None]:
    """Make float32 products float32: no autocast, no TF32, no bfloat16. Also a decorator.

    PyTorch's switches for reduced precision belong to the whole process. Threads that are inside
    at once share them: the first one in saves the settings, the last one out restores them.
    """
    global _depth, _saved
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda", "mps"):
            stack.enter_context(torch.autocast(device_type, enabled=False))
        with _lock:
            if _depth == 0:
                _saved = _get_precision()
                _set_precision(["ieee"] * len(_saved))
            _depth += 1
        try:
            yield
        finally:
            with _lock:
                _depth -= 1
                if _depth == 0:
                    _set_precision(_saved)


def _backends() -> list[Any]:
    # PyTorch 2.9 brought one switch per backend. Once somebody has used those, reading the older
    # process-wide switch raises; the other way round works.
    backends = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    return [backend for backend in backends if hasattr(backend, "fp32_precision")]


def _get_precision() -> list[str]:
    if backends := _backends():
        return [backend.fp32_precision for backend in backends]
    return [torch.get_float32_matmul_precision()]


def _set_precision(values: list[str]) -> None:
    if backends := _backends():
        for backend, value in zip(backends, values, strict=True):
            backend.fp32_precision = value
    else:
        torch.set_float32_matmul_precision("highest" if values == ["ieee"] else values[0])


DELTA_BLOCK = 1 << 21
"""Entries of one input that are computed at a time: 8 MiB in float32."""

STREAM_BLOCK = 1 << 24
"""Entries of all inputs together that are merged at a time: 64 MiB in float32."""

CACHE_BLOCK = 1 << 20
"""Entries of all inputs together that fit the processor's cache while they are compared."""

_divisor: ContextVar[int] = ContextVar("divisor", default=1)


@contextmanager
def smaller_blocks(divisor: int) -> Iterator[None]:
    """Within this context, compute a `divisor`-th of the entries at a time."""
    token = _divisor.set(divisor)
    try:
        yield
    finally:
        _divisor.reset(token)


_DIVISORS = (1, 8, 64)


def in_blocks_that_fit(compute: Callable[[], None], before_retry: Callable[[], None]) -> None:
    """Compute something; where a device's memory does not suffice, again in smaller blocks.

    Args:
        compute: may be called several times; each call overwrites what the previous one wrote.
        before_retry: called when memory did not suffice.

    Raises:
        torch.OutOfMemoryError: if the smallest blocks are too large.
    """
    for divisor in _DIVISORS:
        try:
            with smaller_blocks(divisor):
                compute()
        except torch.OutOfMemoryError:
            # Nothing else here: the traceback keeps alive what the attempt allocated.
            pass
        else:
            return
        before_retry()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    raise torch.OutOfMemoryError("the smallest blocks are too large")


def slices(length: int, width: int, entries: int) -> list[slice]:
    """Cut `length` rows of `width` entries each into equal runs of about `entries`.

    A run has at most half as many entries again, or one row. There is no short rest: each run of
    coordinates takes a pass over all deltas.
    """
    most = max(1, entries // _divisor.get() // max(1, width))
    step = -(-length // max(1, round(length / most)))
    return [slice(start, min(start + step, length)) for start in range(0, length, max(1, step))]
