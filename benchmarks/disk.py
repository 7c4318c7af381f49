"""The disk's speed, and removing files from the page cache."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

BLOCK = 16 * 2**20


@dataclass(frozen=True)
class DiskSpeed:
    """Bytes per second."""

    read: float
    write: float


def disk_speed(folder: Path, size: int) -> DiskSpeed:
    """Write a file of about `size` bytes, through to the disk, and read it from there."""
    path = folder / "disk-speed"
    block = os.urandom(BLOCK)  # which no file system makes smaller
    blocks = max(1, size // BLOCK)
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(blocks):
            file.write(block)
        os.fsync(file.fileno())
    write = time.perf_counter() - start
    drop_from_cache([path])
    buffer = bytearray(BLOCK)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    read = time.perf_counter() - start
    path.unlink()
    return DiskSpeed(read=blocks * BLOCK / read, write=blocks * BLOCK / write)


def median_speed(speeds: Sequence[DiskSpeed]) -> DiskSpeed:
    """Return the median of reading and that of writing."""
    return DiskSpeed(
        read=statistics.median(speed.read for speed in speeds),
        write=statistics.median(speed.write for speed in speeds),
    )


def drop_from_cache(files: Iterable[Path]) -> bool:
    """Have the next reads of these files come from the disk.

    Returns:
        Whether the system lets a program ask for that.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # What is not on the disk yet would stay in the cache.
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True


def files_in(folder: Path) -> list[Path]:
    """Return all files under a folder; none if it is not there."""
    return [path for path in folder.rglob("*") if path.is_file()]


def size_of(files: Iterable[Path]) -> int:
    """Return how many bytes files hold."""
    return sum(path.stat().st_size for path in files)
