"""Time and peak memory of a call."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Call = Callable[[], Tensor]
STATUS = Path("/proc/self/status")


def seconds(call: Call, device: str, runs: int) -> list[float]:
    """Return the wall time of each of `runs` calls."""
    taken = []
    for _ in range(runs):
        _wait_for(device)
        start = time.perf_counter()
        result = call()
        _wait_for(device)
        taken.append(time.perf_counter() - start)
        del result
    return taken


def peak_bytes(call: Call, device: str) -> int | None:
    """Return how far memory rises above what is held before the call, its result included.

    On CUDA that is what PyTorch's allocator holds, on a CPU the process's resident set: call it
    after a warm-up, so that libraries and their buffers are there already.

    Returns:
        None where it cannot be measured: on MPS, and on CPUs other than under Linux.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if device != "cpu" or not _reset_high_water_mark():
        return None
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _reset_high_water_mark() -> bool:
    # What malloc holds of earlier calls is in the resident set: a call that is given that memory
    # again would seem to take less than it does.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(f"no {field} in {STATUS}")


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
