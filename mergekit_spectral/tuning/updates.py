"""Merged updates Δ, made once for each candidate and kept on disk.

- Adapters that one of our methods merges stay an adapter: Δ in factors, in peft's format.
- Everything else is merged by mergekit in float32, and Δ is its difference to the base. float32
  rounds the merged weights by 6e-8 of their size. So Δ, a hundredth or a thousandth of the weights,
  is exact to about 1e-4 of its size. A difference of two models in bfloat16 would not be.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from torch import Tensor

from mergekit_spectral.adapters.writing import write_adapter
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.adapter_merge import AdapterMerge, plan_adapter_merge
from mergekit_spectral.host.models import lend_opened_files
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.host.whole_merges import SHARD_BYTES, StoredTensors, merge_into
from mergekit_spectral.methods import SpectralMethod


@dataclass(frozen=True)
class Update:
    """A merged update Δ on disk.

    Attributes:
        folder: an adapter whose scale is 1, or tensors by the model's names for its parameters.
        is_adapter: which of the two.
    """

    folder: Path
    is_adapter: bool


def plan_adapter(config: MergeConfiguration, options: MergeOptions) -> AdapterMerge | None:
    """Plan a merge into an adapter; None if that is not possible, or would lose something."""
    if not isinstance(find_method(config.merge_method), SpectralMethod):
        return None
    try:
        merge = plan_adapter_merge(config, options)
    except MergeError:  # a merge of whole models says what is wrong, if it cannot be merged at all
        return None
    return None if merge.dropped else merge


def make_adapter(merge: AdapterMerge, seed: int, folder: Path) -> Update:
    """Merge adapters into one, in float32.

    Args:
        merge: the planned merge.
        seed: for methods that draw at random.
        folder: for the adapter. It is left as it is if it has one already.
    """
    update = Update(folder, is_adapter=True)
    if folder.exists():
        return update
    torch.manual_seed(seed)
    layers = {weight.module: weight.layer for weight in merge.run()}
    if not layers:
        raise MergeError(
            "The merged update of every weight is zero, so nothing can be tuned; check the "
            "adapters, and `weight` and `lambda` in the recipe."
        )
    write_adapter(
        folder,
        layers,
        all_modules=merge.base.modules,
        base_model=str(merge.base.model),
        dtype=torch.float32,
        task_type="CAUSAL_LM",
        card="",
    )
    return update


def make_difference(
    config: MergeConfiguration,
    plan: PlannedMerge,
    base: ModelReference,
    options: MergeOptions,
    dtype: torch.dtype,
    folder: Path,
    load: Callable[[Path], Iterator[tuple[str, Tensor]]],
) -> Update:
    """Have mergekit merge a recipe, and keep the difference to the base.

    Args:
        config: the recipe, of any method.
        plan: of a recipe with the same models and tensors.
        base: the base model.
        options: mergekit's.
        dtype: of the stored difference.
        folder: for the difference. It is left as it is if it is there already.
        load: loads a checkpoint with transformers, and yields its parameters by the names that the
            model has for them. Some models join a checkpoint's tensors when they are loaded.

    Raises:
        MergeError: the merge fails, or the merged model has other tensors than the base.
    """
    update = Update(folder, is_adapter=False)
    if folder.exists():
        return update
    merged, difference = (folder.with_name(f"{folder.name}.{part}") for part in ("merged", "delta"))
    try:
        for left in (merged, difference):
            shutil.rmtree(left, ignore_errors=True)
        merge_into(
            merged,
            config.model_copy(update={"dtype": "float32", "out_dtype": None}, deep=True),
            options.model_copy(update={"out_shard_size": SHARD_BYTES}),
        )
        StoredTensors.write(difference, _differences(StoredTensors(merged), plan, base, dtype))
        for file in merged.glob("*.json"):
            if not file.name.endswith(".index.json"):
                shutil.copy(file, difference)
        shutil.rmtree(merged)
        StoredTensors.write(folder, load(difference))
    finally:
        for left in (merged, difference):
            shutil.rmtree(left, ignore_errors=True)
    return update


def _differences(
    merged: StoredTensors, plan: PlannedMerge, base: ModelReference, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    planned = {tensor.name: tensor for tensor in plan.tensors}
    with lend_opened_files(plan.recipe.config, plan.models, plan.options):
        for name in merged.names:
            tensor, after = planned.get(name), merged.read(name)
            if tensor is None or tensor.inputs.get(base) is None:
                raise MergeError(
                    f"The merged model has a tensor {name}, and the base {base} does not, so their "
                    "difference cannot be scaled; tune a recipe that keeps the base's tensors."
                )
            before = tensor.read(base)
            if before.shape != after.shape:
                raise MergeError(
                    f"Tensor {name} of the merged model has the shape {list(after.shape)}, and "
                    f"that of the base {base} has {list(before.shape)}, so their difference cannot "
                    "be scaled; remove `tokenizer_source` or `tokenizer` while you tune."
                )
            yield name, (after - before.to(after.dtype)).to(dtype)
