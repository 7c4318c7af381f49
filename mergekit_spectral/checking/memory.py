"""How much memory a merge takes at its peak, by going through its plan.

mergekit maps the files of its inputs and leaves a shard mapped until it comes to the next, and
holds the merged tensors until a shard of the output is full. What the method needs in addition, the
method says itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.common import ModelReference, dtype_from_name
from mergekit.merge_methods.base import BasePolicy

from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.methods.costs import MethodCosts, TensorInputs
from mergekit_spectral.methods.mergekits_own import costs_of


@dataclass(frozen=True)
class MemoryPeak:
    """The largest amount that a merge holds at one time, in bytes.

    Attributes:
        host: main memory of the whole process.
        mapped: the part of `host` that is pages of the inputs' files, which the system can take
            back.
        device: memory of a GPU; 0 if the merge does not run on one.
        tensor: the tensor at which `host` is reached.
    """

    host: int
    mapped: int
    device: int
    tensor: str


@dataclass(frozen=True)
class TensorMemory:
    """What one tensor takes, in bytes.

    Attributes:
        inputs: the copies in another dtype that mergekit makes of inputs.
        moved: the inputs that mergekit moves to the device, if there is one.
        working: what the method holds, on the device if there is one.
        output: the merged tensor.
        mapped: by file, what dense inputs and bases of adapters have in it.
    """

    inputs: int
    moved: int
    working: int
    output: int
    mapped: Mapping[Path, int]


def find_memory_peak(merge: PlannedMerge, process: int) -> MemoryPeak:
    """Go through a plan and return the peak.

    Args:
        merge: as planned; the device in its options decides what is held where.
        process: bytes that Python, PyTorch and mergekit take without any model.
    """
    on_device = _is_on_gpu(merge)
    mapped: dict[Path, int] = {}
    costs = costs_of(merge.method)
    shard, peak = 0, MemoryPeak(process, 0, 0, "")
    for tensor in merge.tensors:
        taken = memory_of(merge, costs, tensor)
        for file, size in taken.mapped.items():
            # mergekit closes the shard before.
            mapped = {other: of for other, of in mapped.items() if _stays_mapped(other, file)}
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


def _is_on_gpu(merge: PlannedMerge) -> bool:
    return torch.device(merge.options.device or "cpu").type != "cpu"


def describe_inputs(
    merge: PlannedMerge, costs: MethodCosts, tensor: PlannedTensor
) -> TensorInputs | None:
    """Return what costs depend on at a tensor, or None if no model has it.

    Args:
        merge: as planned.
        costs: of the merge's method.
        tensor: one of the plan's.
    """
    first = next((value for value in tensor.inputs.values() if value is not None), None)
    if first is None:
        return None
    # Methods without a base merge it like the other inputs.
    merges_base = merge.method.spec.contract.base == BasePolicy.IGNORED
    inputs = [
        model
        for model, value in tensor.inputs.items()
        if value is not None and (merges_base or model != tensor.base_model)
    ]
    dtype = dtype_from_name(merge.recipe.config.dtype) or first.dtype
    factored = _factored_inputs(merge, costs, tensor)
    return TensorInputs(
        shape=first.shape,
        ranks=tuple(factored.get(model) for model in inputs),
        in_factors=factored.keys() >= set(inputs),
        itemsize=dtype.itemsize,
        vocabulary=tensor.vocabulary,
        settings=dict(tensor.shared),
        on_gpu=_is_on_gpu(merge),
    )


def memory_of(merge: PlannedMerge, costs: MethodCosts, tensor: PlannedTensor) -> TensorMemory:
    """Return what a tensor of a plan takes while it is merged."""
    inputs = describe_inputs(merge, costs, tensor)
    if inputs is None:
        return TensorMemory(0, 0, 0, 0, {})
    config, models = merge.recipe.config, merge.models
    available = {m: value for m, value in tensor.inputs.items() if value is not None}
    first = next(iter(available.values()))
    entries, wanted = first.numel(), dtype_from_name(config.dtype)
    dense = available.keys() - _factored_inputs(merge, costs, tensor).keys()
    converted = 0
    mapped = {}
    for m in dense:
        stored = _stored_dtype(merge, m, tensor.names[m], first.dtype)
        converted += entries * inputs.itemsize if wanted not in (None, stored) else 0
        folder = Path(f"copy of {m}") if m in merge.copied else models[m].checkpoint.folder
        file = folder / models[m].index.tensor_paths.get(tensor.names[m], "")
        mapped[file] = entries * stored.itemsize
    out = dtype_from_name(config.out_dtype) or wanted or first.dtype
    return TensorMemory(
        inputs=converted,
        moved=0 if costs.reads_lazily else entries * inputs.itemsize * len(available),
        working=costs.peak_memory(inputs),
        output=entries * out.itemsize,
        mapped=mapped,
    )


def _stored_dtype(
    merge: PlannedMerge, model: ModelReference, name: str, otherwise: torch.dtype
) -> torch.dtype:
    """Return the dtype of a tensor in its file, or in the copy that mergekit makes of that."""
    copied = model in merge.copied
    in_copies = dtype_from_name(merge.options.lora_merge_dtype) if copied else None
    _, stored = merge.models[model].headers.get(name, ((), otherwise))
    return in_copies or stored


def _factored_inputs(
    merge: PlannedMerge, costs: MethodCosts, tensor: PlannedTensor
) -> dict[ModelReference, int | None]:
    """Return the inputs that are read in an adapter's factors, with their ranks, if known.

    The rank is 0 where an adapter leaves the base's tensor as it is.
    """
    if not costs.reads_lazily:
        return {}
    found = {}
    for model, name in tensor.names.items():
        adapter = merge.models[model].adapter
        if adapter is None or name in adapter.replacements:
            continue
        if name in adapter.updates:
            found[model] = getattr(adapter.updates[name], "rank", None)
        elif model.model_copy(update={"lora": None}) == tensor.base_model:
            found[model] = 0
    return found


def _stays_mapped(one: Path, other: Path) -> bool:
    """Return whether a file stays mapped when another is."""
    return one == other or one.parent != other.parent
