"""How many workers this machine has room for, and what a merge takes with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from mergekit.options import MergeOptions

from mergekit_spectral.checking.estimate import Costs
from mergekit_spectral.checking.timing import DISK_BYTES, measure_speeds
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.scaling.parts import Part, cut

PROCESS_BYTES = 700 * 10**6
"""Main memory that Python, PyTorch and mergekit take in each worker."""
GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""
FREE_SHARE = 0.8
"""Share of the free memory that workers may take."""


@dataclass(frozen=True)
class RunCosts:
    """What `mergekit-spectral run` takes.

    Attributes:
        workers: that merge at a time.
        threads: of each.
        seconds: estimated duration on idle machines, all like this one.
        worker_bytes: memory of the largest worker, without pages of mapped files.
        memory_bytes: that of all workers and of the process that leads them.
        disk_bytes: of the merged model, and of parts and copies of LoRA inputs beside it.
    """

    workers: int
    threads: int
    seconds: float
    worker_bytes: int
    memory_bytes: int
    disk_bytes: int


def default_workers(parts: Sequence[Part], options: MergeOptions) -> int:
    """Return how many workers cores, memory and parts are enough for; with GPUs, one for each."""
    device = torch.device(options.device or "cpu")
    if device.type != "cpu":
        all_gpus = device.type == "cuda" and device.index is None
        return max(1, torch.cuda.device_count()) if all_gpus else 1
    free = _free_bytes() * FREE_SHARE
    return max(1, min(_cores(), len(parts), int(free // worker_bytes(parts))))


def threads_of(workers: int) -> int:
    """Return each worker's threads: its share of the cores, or PyTorch's choice for one worker."""
    return torch.get_num_threads() if workers == 1 else max(1, _cores() // workers)


def _cores() -> int:
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):  # "max", or no control groups
        quota, period = map(int, (GROUP / "cpu.max").read_text().split())
        count = min(count, max(1, quota // period))
    return count


def _free_bytes() -> int:
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError, KeyError):
        limit = int((GROUP / "memory.max").read_text())
        used = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - int(used["anon"]))  # the rest are pages of files
    return free


def worker_bytes(parts: Sequence[Part]) -> int:
    """Return the memory of one worker, in bytes, without pages of files."""
    return PROCESS_BYTES + max((part.memory for part in parts), default=0)


def estimate_run(merge: PlannedMerge, costs: Costs, workers: int) -> RunCosts:
    """Estimate what a merge takes with a number of workers.

    Args:
        merge: as planned.
        costs: of the merge by mergekit alone.
        workers: on this machine, or on a cluster of machines like it.
    """
    parts, threads = cut(merge), threads_of(workers)
    inputs = max((len(tensor.inputs) for tensor in merge.tensors), default=1)
    speeds = measure_speeds(merge.method, inputs, threads)
    ends = [0.0] * workers
    for part in sorted(parts, key=lambda part: -part.seconds()):
        ends[ends.index(min(ends))] += part.seconds(speeds)
    worker = worker_bytes(parts)
    # The model is put together from the parts' files.
    assembly = 2 * costs.output_bytes / DISK_BYTES
    return RunCosts(
        workers=workers,
        threads=threads,
        seconds=round(max(ends) + 2 * costs.startup_seconds + assembly, 1),
        worker_bytes=worker,
        memory_bytes=worker if workers == 1 else PROCESS_BYTES + workers * worker,
        disk_bytes=disk_bytes(costs.output_bytes, merge.options) + costs.copy_bytes,
    )


def disk_bytes(written: int, options: MergeOptions) -> int:
    """Return the bytes on the disk of a model, and of parts that are in a shard being written."""
    return written + min(written, options.out_shard_size)
