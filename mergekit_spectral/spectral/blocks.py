"""How much is made at a time.

Deltas, coordinates and merged entries are made block by block, so that what stands beside the
inputs stays small. Where a device runs out of memory all the same, the caller goes on with smaller
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

DELTA_BLOCK = 1 << 21
"""Entries of one input that are formed at a time: 8 MiB in float32."""

STREAM_BLOCK = 1 << 24
"""Entries of all inputs together that are merged at a time: 64 MiB in float32."""

CACHE_BLOCK = 1 << 20
"""Entries of all inputs together that fit the processor's cache while they are compared."""

_divisor: ContextVar[int] = ContextVar("divisor", default=1)


@contextmanager
def smaller_blocks(divisor: int) -> Iterator[None]:
    """Within this context, make a `divisor`-th of the entries at a time."""
    token = _divisor.set(divisor)
    try:
        yield
    finally:
        _divisor.reset(token)


def slices(length: int, width: int, entries: int) -> Iterator[slice]:
    """Cut `length` rows of `width` entries each into runs of about `entries`, at least one row."""
    step = max(1, entries // _divisor.get() // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
