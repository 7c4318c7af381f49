"""Run ``mergekit-spectral adapter``: merge a recipe into an adapter, and print a table."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
import yaml
from mergekit.common import ModelPath
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mergekit_spectral.adapters.writing import check_folder, common_task_type, write_adapter
from mergekit_spectral.checking.servers import check_servers
from mergekit_spectral.command_line.command import is_quiet
from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.adapter_merge import AdapterMerge, MergedWeight, plan_adapter_merge
from mergekit_spectral.host.model_card import (
    describe_method,
    local_models,
    portable_recipe,
    repeat,
    tuned_on,
)
from mergekit_spectral.recipe.findings import find_errors
from mergekit_spectral.recipe.reading import read_recipe
from mergekit_spectral.spectral import dtype_name

CARD = """\
---
{metadata}---

# {name}

A LoRA adapter for {base}, merged from other adapters with mergekit-spectral.

### Models Merged

{sources}

### Configuration

```yaml
{recipe}
```

{sections}"""

UPDATE_LOST = ("update lost, mean", "update lost, maximum")
INPUTS_LOST = ("inputs lost, mean", "inputs lost, maximum")
LEAST = 1e-4
"""Losses below this share are shown as 0.00%, and need no explanation."""
ABOUT_UPDATES = (
    "Update lost: the share of the merged update's squared norm that is not in the adapter, "
    "because of its rank."
)
ABOUT_INPUTS = (
    "Inputs lost: the share of the inputs' squared norms that was left out before they were "
    "merged, to get this rank."
)
ABOUT_ACCURACY = (
    "These shares do not say what the adapter has lost in accuracy: in one measurement, a loss of "
    "3% of the update was 22 of 64 points of one task, and none of another (docs/lora.md). Score "
    "the adapter on each task, also without --rank."
)


def merge_into_adapter(
    recipe: Path,
    out: Path,
    *,
    rank: int | None,
    energy: float,
    dtype: torch.dtype,
    rank_pattern: bool,
    overwrite: bool,
    options: MergeOptions,
    console: Console,
) -> None:
    """Merge the LoRA inputs of a recipe into one adapter, and print its ranks and losses.

    With ``--quiet``, nothing is printed.

    Args:
        recipe: path of the recipe.
        out: folder to write the adapter to.
        rank: largest rank of a weight; None for the rank of its merged update.
        energy: share of each merged update's squared norm to keep.
        dtype: dtype in which the factors are stored.
        rank_pattern: whether each weight is stored with its own rank.
        overwrite: whether an adapter in the folder may be replaced.
        options: mergekit's options.
        console: console for progress and remarks.

    Raises:
        MergeError: if the recipe or an adapter cannot be merged into an adapter, or the folder
            cannot be written to. Nothing is written in this case.
    """
    config = _read(recipe)
    text = recipe.read_text(encoding="utf-8")
    merge = plan_adapter_merge(config, options)
    check_folder(out, merge.folders, overwrite)
    base = merge.base.model
    for name in merge.dropped:
        console.print(
            f"Left out: {name}. The merged adapter holds only low-rank updates of weight matrices."
        )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        steps = progress.track(
            merge.run(rank=rank, energy=energy), len(merge), description="Merging weights"
        )
        merged = list(steps)
    if not merged:
        raise MergeError(
            "The merged update of every weight is zero, so there is nothing to write; check the "
            "adapters, and `weight` and `lambda` in the recipe."
        )

    limits = f" --rank {rank}" * (rank is not None) + f" --energy {energy}" * (energy < 1)
    limits += f" --dtype {dtype_name(dtype)}" * (dtype != torch.float32)
    limits += " --rank-pattern" * rank_pattern
    write_adapter(
        out,
        {weight.module: weight.layer for weight in merged},
        all_modules=merge.base.modules,
        base_model=str(base),
        dtype=dtype,
        task_type=common_task_type(adapter.config for adapter in merge.adapters),
        rank_pattern=rank_pattern,
        card=_card(merge, text, out.resolve().name, limits),
    )
    size = (out / "adapter_model.safetensors").stat().st_size
    if is_quiet():
        return
    written = f"Adapter written to {out}: {len(merged)} weights, {size / 1e6:.1f} MB"
    _print(merged, (written, *_serving_notes(out)))


def _read(recipe: Path) -> MergeConfiguration:
    reading = read_recipe(recipe)
    if reading.recipe is None:
        first = find_errors(reading.findings)[0]
        raise MergeError(f"{first.place(recipe)}: {first.message}")
    return reading.recipe.config


def _card(merge: AdapterMerge, recipe: str, name: str, limits: str) -> str:
    """Return the adapter's card.

    Args:
        merge: what was merged.
        recipe: the recipe's text.
        name: of the adapter.
        limits: options that decide about ranks and the dtype.
    """
    text = portable_recipe(recipe)
    config: MergeConfiguration = MergeConfiguration.model_validate(yaml.safe_load(text))
    base, adapters = config.base_model, [entry.model.lora for entry in config.models or []]
    assert base is not None  # the merge was planned
    metadata = {
        "base_model": str(base),
        "library_name": "peft",
        "tags": ["lora", "merge", "mergekit", "mergekit-spectral"],
    }
    command = f"mergekit-spectral adapter recipe.yml merged/{limits}"
    sections = (
        describe_method(merge.method, config),
        *tuned_on(recipe),
        repeat(merge.method, command),
        *local_models(config),
    )
    return CARD.format(
        metadata=yaml.safe_dump(metadata),
        name=name,
        base=_link(base.model),
        sources="\n".join(f"* {_link(adapter)}" for adapter in adapters if adapter),
        recipe=text.strip(),
        sections="\n".join(f"{section.rstrip()}\n" for section in sections),
    )


def _link(model: ModelPath) -> str:
    """Return a model's name, as a link unless it is a local folder. The Hub is not asked."""
    is_local = model.path.startswith(".") or os.path.exists(model.path)
    return str(model) if is_local else f"[{model}](https://huggingface.co/{model.path})"


def _serving_notes(out: Path) -> Iterator[str]:
    """Yield a line for each server that refuses the adapter, and one that names the command."""
    servings = check_servers(out)
    taken = [each.server for each in servings if each.takes]
    for each in servings:
        if not each.takes:
            yield f"{each.server} does not take it: {'; '.join(each.reasons)}."
    ready = f"Ready for peft{''.join(f', {server}' for server in taken)}; "
    yield f"{ready}`mergekit-spectral check {out}` prints how to serve it."


def _print(merged: Sequence[MergedWeight], notes: Sequence[str]) -> None:
    """Print ranks and losses by kind of weight, which is the last part of the module's name."""
    kinds: dict[str, list[MergedWeight]] = defaultdict(list)
    for weight in merged:
        kinds[weight.module.rsplit(".", 1)[-1]].append(weight)
    is_projected = any(weight.inputs_kept < 1 for weight in merged)
    rows = []
    for kind, weights in kinds.items():
        ranks = sorted(weight.compressed.rank for weight in weights)
        row = [
            kind,
            str(len(weights)),
            str(ranks[0]) if ranks[0] == ranks[-1] else f"{ranks[0]}-{ranks[-1]}",
            *_lost(weight.compressed.kept for weight in weights),
        ]
        rows.append(row + _lost(weight.inputs_kept for weight in weights) * is_projected)
    header = ("weight", "count", "rank", *UPDATE_LOST, *(INPUTS_LOST if is_projected else ()))
    is_cut = any(weight.compressed.kept < 1 - LEAST for weight in merged)
    remarks = (ABOUT_UPDATES if is_cut else "", ABOUT_INPUTS if is_projected else "")
    explained = [*notes, *filter(None, remarks)]
    if is_cut or is_projected:
        explained.append(ABOUT_ACCURACY)
    print_table("The merged adapter", header, rows, words=("weight",), notes=explained)


def _lost(kept: Iterable[float]) -> list[str]:
    """Return the mean and the largest loss, of shares that are kept."""
    losses = [max(0.0, 1 - share) for share in kept]
    return [f"{fmean(losses):.2%}", f"{max(losses):.2%}"]
