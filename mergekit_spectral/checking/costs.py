"""What a merge reads and writes."""

from __future__ import annotations

import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.common import dtype_from_name
from mergekit.config import MergeConfiguration

from mergekit_spectral.checking.memory import MemoryPeak, memory_peak
from mergekit_spectral.checking.out import existing
from mergekit_spectral.checking.timing import measure, merged_inputs, seconds, work_of
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.recipe.findings import Findings


@dataclass(frozen=True)
class Costs:
    """What a merge takes.

    Attributes:
        parameters: of the merged model.
        tensors: of it.
        input_bytes: of all files that are read, each once.
        output_bytes: of the merged model's weights.
        copy_bytes: of the merged copies that mergekit makes of LoRA inputs first.
        free_bytes: on the disk that the merged model goes to.
        memory: at its peak.
        decompositions: of matrices.
        seconds: about how long it runs.
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


def costs_of(merge: PlannedMerge, out: Path, findings: Findings) -> Costs:
    """Tell what a merge takes, and compare that to the disk.

    Args:
        merge: as planned.
        out: where the merged model goes; it need not be there.
        findings: gets an error if the disk is too small.
    """
    models, copied = merge.models, merge.copied
    merged = [
        (value.shape.numel(), _out_dtype(merge.config, value.dtype))
        for tensor in merge.tensors
        if (value := next((v for v in tensor.inputs.values() if v is not None), None)) is not None
    ]
    read = sum(file.stat().st_size for file in {f for m in models.values() for f in m.files})
    written = sum(count * dtype.itemsize for count, dtype in merged)
    work = work_of(merge, read + written)
    inputs = max((len(merged_inputs(merge.method, tensor)) for tensor in merge.tensors), default=0)
    startup = time.process_time()  # of a process that has imported what a merge imports
    costs = Costs(
        parameters=sum(count for count, _ in merged),
        tensors=len(merged),
        input_bytes=read,
        output_bytes=written,
        copy_bytes=sum(models[reference].checkpoint.bytes for reference in copied),
        free_bytes=shutil.disk_usage(existing(out)).free,
        memory=memory_peak(merge, resident_bytes()),
        decompositions=work.decompositions,
        seconds=round(
            seconds(work, measure(merge.method, max(1, inputs)), startup, len(copied)), 1
        ),
    )
    _check_room(costs, out, merge.options.lora_merge_cache, findings)
    return costs


def _check_room(costs: Costs, out: Path, copies: str | None, findings: Findings) -> None:
    need = {"the merged model takes": (costs.output_bytes, existing(out))}
    if copies is not None and costs.copy_bytes:
        folder = existing(Path(copies))
        if folder.stat().st_dev == existing(out).stat().st_dev:
            both = costs.output_bytes + costs.copy_bytes
            need = {"the merged model and copies of LoRA inputs take": (both, folder)}
        else:
            need["copies of LoRA inputs take"] = (costs.copy_bytes, folder)
    for what, (size, folder) in need.items():
        free = shutil.disk_usage(folder).free
        if size > free:
            findings.error(
                f"{what} {gigabytes(size)}, but the disk of {folder} has {gigabytes(free)} left; "
                "make room, or write elsewhere."
            )


def resident_bytes() -> int:
    """Return the main memory that this process has."""
    state = Path("/proc/self/statm")
    if state.exists():
        return int(state.read_text().split()[1]) * resource.getpagesize()
    # At its most, and in bytes under macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def gigabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _out_dtype(config: MergeConfiguration, stored: torch.dtype) -> torch.dtype:
    return dtype_from_name(config.out_dtype or config.dtype) or stored
