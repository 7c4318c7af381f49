"""What a merge reads and writes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.common import ModelReference, dtype_from_name
from mergekit.config import MergeConfiguration

from mergekit_spectral.checking.findings import Findings
from mergekit_spectral.checking.models import CheckedModel
from mergekit_spectral.checking.plan import PlannedTensor


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
    """

    parameters: int
    tensors: int
    input_bytes: int
    output_bytes: int
    copy_bytes: int
    free_bytes: int


def costs_of(
    config: MergeConfiguration,
    plan: Iterable[PlannedTensor],
    models: Mapping[ModelReference, CheckedModel],
    copied: Iterable[ModelReference],
    out: Path,
    findings: Findings,
) -> Costs:
    """Add up what a merge reads and writes, and compare that to the disk.

    Args:
        config: the recipe.
        plan: of all tensors.
        models: all that the recipe names.
        copied: those that mergekit merges into a copy of their base first.
        out: where the merged model goes, if that is known; it need not be there.
        findings: gets an error if the disk is too small.
    """
    merged = [
        (value.shape.numel(), _out_dtype(config, value.dtype))
        for tensor in plan
        if (value := next((v for v in tensor.inputs.values() if v is not None), None)) is not None
    ]
    files = {file for model in models.values() for file in model.checkpoint.weights}
    costs = Costs(
        parameters=sum(count for count, _ in merged),
        tensors=len(merged),
        input_bytes=sum(file.stat().st_size for file in files)
        + sum(model.adapter_bytes for model in models.values()),
        output_bytes=sum(count * dtype.itemsize for count, dtype in merged),
        copy_bytes=sum(models[reference].checkpoint.bytes for reference in copied),
        free_bytes=shutil.disk_usage(_existing(out)).free,
    )
    if costs.output_bytes > costs.free_bytes:
        findings.error(
            f"the merged model takes {gigabytes(costs.output_bytes)}, but the disk of {out} has "
            f"{gigabytes(costs.free_bytes)} left; make room, or write it elsewhere."
        )
    return costs


def gigabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _out_dtype(config: MergeConfiguration, stored: torch.dtype) -> torch.dtype:
    return dtype_from_name(config.out_dtype or config.dtype) or stored


def _existing(folder: Path) -> Path:
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.exists())
