"""Estimate what a merge takes: parameters, bytes of disk, memory and time."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from mergekit.common import dtype_from_name
from mergekit.config import MergeConfiguration

from mergekit_spectral.checking.memory import MemoryPeak, describe_inputs, find_memory_peak
from mergekit_spectral.checking.out_folder import closest_existing
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.checking.timing import estimate_seconds, measure_speeds
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.methods.costs import Work
from mergekit_spectral.methods.mergekits_own import costs_of
from mergekit_spectral.recipe.findings import Finding, error


@dataclass(frozen=True)
class Costs:
    """What a merge takes.

    Attributes:
        parameters: number of parameters of the merged model.
        tensors: number of its tensors.
        input_bytes: bytes of all files that are read, each counted once.
        output_bytes: bytes of the merged model's weights.
        copy_bytes: bytes of the copies that mergekit first merges LoRA inputs into.
        free_bytes: free bytes on the disk that the merged model goes to.
        memory: memory at its peak.
        decompositions: number of matrices that are decomposed.
        seconds: estimated duration on an idle machine.
        startup_seconds: the part of it that Python takes to start.
    """

    parameters: int
    tensors: int
    input_bytes: int
    output_bytes: int
    copy_bytes: int
    free_bytes: int
    memory: MemoryPeak
    decompositions: int
    seconds: float
    startup_seconds: float


def estimate_costs(merge: PlannedMerge, out: Path) -> Costs:
    """Estimate what a merge takes.

    Args:
        merge: as planned.
        out: where the merged model goes; it need not exist.
    """
    config, method = merge.recipe.config, costs_of(merge.method)
    merged = [
        (value.shape.numel(), _out_dtype(config, value.dtype))
        for tensor in merge.tensors
        if (value := next((v for v in tensor.inputs.values() if v is not None), None)) is not None
    ]
    files = {file for model in merge.models.values() for file in model.files}
    read = sum(file.stat().st_size for file in files)
    written = sum(count * dtype.itemsize for count, dtype in merged)
    tensors = [each for t in merge.tensors if (each := describe_inputs(merge, method, t))]
    work = sum((method.count_work(each) for each in tensors), Work())
    startup = time.process_time()  # of a process that has imported what a merge imports
    speeds = measure_speeds(merge.method, max((each.count for each in tensors), default=0) or 1)
    seconds = startup + estimate_seconds(work, speeds, read + written, len(merge.copied))
    return Costs(
        parameters=sum(count for count, _ in merged),
        tensors=len(merged),
        input_bytes=read,
        output_bytes=written,
        copy_bytes=merge.copy_bytes,
        free_bytes=shutil.disk_usage(closest_existing(out)).free,
        memory=find_memory_peak(merge, resident_bytes()),
        decompositions=int(work.decompositions),
        seconds=round(seconds, 1),
        startup_seconds=round(startup, 1),
    )


def check_room(costs: Costs | None, subject: Subject) -> Iterator[Finding]:
    """Check that disks have room for downloads, the merged model and copies of LoRA inputs.

    Args:
        costs: what the merge takes; None if only the downloads are known.
        subject: the recipe.
    """
    written = [("downloads", sum(subject.hub.downloads.values()), subject.hub.cache)]
    if costs is not None:
        written.append(("the merged model", costs.output_bytes, subject.out))
        if subject.options.lora_merge_cache is not None:
            folder = Path(subject.options.lora_merge_cache)
            written.append(("copies of LoRA inputs", costs.copy_bytes, folder))
    disks: dict[int, list[tuple[str, int, Path]]] = defaultdict(list)
    for what, size, folder in written:
        if size:
            folder = closest_existing(folder)
            disks[folder.stat().st_dev].append((what, size, folder))
    for on_disk in disks.values():
        names, sizes, folders = zip(*on_disk, strict=True)
        size, free = sum(sizes), shutil.disk_usage(folders[-1]).free
        if size > free:
            take = "takes" if names == ("the merged model",) else "take"
            yield error(
                f"{' and '.join(names)} {take} {gigabytes(size)}, but the disk of {folders[-1]} "
                f"has {gigabytes(free)} left; free some space, or write to another disk."
            )


def resident_bytes() -> int:
    """Return the main memory that this process takes."""
    return int(psutil.Process().memory_info().rss)


def gigabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _out_dtype(config: MergeConfiguration, stored: torch.dtype) -> torch.dtype:
    return dtype_from_name(config.out_dtype or config.dtype) or stored
