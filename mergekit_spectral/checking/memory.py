"""How much memory a merge takes at its peak, by going through its plan.

mergekit maps the files of its inputs and leaves a shard mapped until it comes to the next, and
holds the merged tensors until a shard of the output is full. What a method needs on top of that is
fitted to what `benchmarks/merge_speed.py` measures, in bytes for each entry of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.common import ModelReference, dtype_from_name
from mergekit.merge_methods.base import MergeMethod

from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.methods import KnOTS, SpectralMethod, shared_side

BLOCKS = 48 * 2**20
"""What our methods hold besides, in blocks of a fixed size."""


@dataclass(frozen=True)
class MemoryPeak:
    """The largest of what a merge holds at one time, in bytes.

    Attributes:
        host: main memory, of the whole process.
        mapped: of that, pages of the inputs' files, which the system can take back.
        device: of a GPU, 0 if the merge does not run on one.
        tensor: at which it is reached.
    """

    host: int
    mapped: int
    device: int
    tensor: str


@dataclass(frozen=True)
class TensorMemory:
    """What one tensor takes, in bytes.

    Attributes:
        inputs: of the copies in another dtype that mergekit makes of inputs.
        moved: of what mergekit moves to the device, if there is one; under a method of ours what is
            dense stays in main memory.
        working: of what the method holds, on the device if there is one.
        output: of the merged tensor.
        mapped: of each file, what its inputs have there; an adapter's input has what the base has.
    """

    inputs: int
    moved: int
    working: int
    output: int
    mapped: Mapping[Path, int]


def memory_peak(merge: PlannedMerge, process: int) -> MemoryPeak:
    """Go through a plan and return the peak.

    Args:
        merge: as planned; the device in its options decides what is held where.
        process: bytes that Python, PyTorch and mergekit take without any model.
    """
    on_device = torch.device(merge.options.device or "cpu").type != "cpu"
    mapped: dict[Path, int] = {}
    shard, peak = 0, MemoryPeak(process, 0, 0, "")
    for tensor in merge.tensors:
        taken = _of_tensor(merge, tensor)
        for file, size in taken.mapped.items():
            # mergekit closes the shard before.
            mapped = {other: of for other, of in mapped.items() if _goes_on(other, file)}
            mapped[file] = mapped.get(file, 0) + size
        if shard and shard + taken.output > merge.options.out_shard_size:
            shard = 0
        shard += taken.output
        pages = sum(mapped.values())
        host = process + pages + shard + taken.inputs + (0 if on_device else taken.working)
        device = taken.moved + taken.working + taken.output if on_device else 0
        if host > peak.host:
            peak = MemoryPeak(host, pages, max(device, peak.device), tensor.name)
        elif device > peak.device:
            peak = MemoryPeak(peak.host, peak.mapped, device, peak.tensor)
    return peak


def _of_tensor(merge: PlannedMerge, tensor: PlannedTensor) -> TensorMemory:
    config, method, models = merge.config, merge.method, merge.models
    there = {m: value for m, value in tensor.inputs.items() if value is not None}
    if not there:
        return TensorMemory(0, 0, 0, 0, {})
    first = next(iter(there.values()))
    entries, wanted = first.numel(), dtype_from_name(config.dtype)
    item = (wanted or first.dtype).itemsize
    factored = [m for m in there if is_factored(models[m], tensor.names[m], method)]
    converted = 0
    mapped = {}
    for m in there.keys() - factored:
        stored = _stored(merge, m, tensor.names[m], first.dtype)
        converted += entries * item if wanted not in (None, stored) else 0
        folder = Path(f"copy of {m}") if m in merge.copied else models[m].checkpoint.folder
        file = folder / models[m].index.tensor_paths.get(tensor.names[m], "")
        mapped[file] = entries * stored.itemsize
    inputs = sum(model != tensor.base_model for model in there)
    working = _working(method, tensor, first.shape, inputs, item, len(factored) == inputs)
    out = dtype_from_name(config.out_dtype) or wanted or first.dtype
    moved = 0 if isinstance(method, SpectralMethod) else entries * item * len(there)
    return TensorMemory(converted, moved, working, entries * out.itemsize, mapped)


def _stored(
    merge: PlannedMerge, model: ModelReference, name: str, otherwise: torch.dtype
) -> torch.dtype:
    """Return the dtype of a tensor in its file, or in the copy that mergekit makes of that."""
    copied = model in merge.copied
    in_copies = dtype_from_name(merge.options.lora_merge_dtype) if copied else None
    _, stored = merge.models[model].headers.get(name, ((), otherwise))
    return in_copies or stored


def is_factored(model: CheckedModel, name: str, method: MergeMethod) -> bool:
    """Tell whether a method of ours reads an input's tensor as an adapter's factors."""
    adapter = model.adapter
    return isinstance(method, SpectralMethod) and adapter is not None and name in adapter.updates


def _goes_on(one: Path, other: Path) -> bool:
    """Tell whether a file stays mapped when another is."""
    return one == other or one.parent != other.parent


def _working(
    method: MergeMethod,
    tensor: PlannedTensor,
    shape: torch.Size,
    inputs: int,
    item: int,
    thin: bool,
) -> int:
    entries = shape.numel()
    if not isinstance(method, SpectralMethod):
        # The stack of deltas, their signs and what is left of them, and one sort.
        return entries * (3 * inputs * item + 12)
    if method.is_elementwise(shape, tensor.vocabulary, dict(tensor.shared)):
        return BLOCKS
    if thin:
        return BLOCKS + entries * 2
    side = shared_length(shape, tensor.shared)
    per_input = 1.2 * inputs if isinstance(method, KnOTS) else 0.0
    return int(BLOCKS + entries * (4 + per_input) + side**2 * (8 + 2 * inputs))


def shared_length(shape: torch.Size, shared: Mapping[str, object]) -> int:
    """Return the length of the side whose basis the inputs share."""
    out_features, in_features = shape[-2:] if len(shape) == 3 else (shape[0], shape[1:].numel())
    direction = shared_side(str(shared.get("direction", "auto")), (out_features, in_features))
    return out_features if direction == "horizontal" else in_features
