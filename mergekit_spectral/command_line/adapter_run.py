"""Run ``mergekit-spectral adapter``: merge a recipe into an adapter, and print a table."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import peft
import torch
import yaml
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mergekit_spectral.adapters.writing import check_folder, write_adapter
from mergekit_spectral.checking.servers import check_servers
from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.adapter_merge import AdapterMerge, MergedWeight, plan_adapter_merge
from mergekit_spectral.recipe.findings import find_errors
from mergekit_spectral.recipe.reading import read_recipe

_WITH_HEAD = {peft.TaskType.SEQ_CLS, peft.TaskType.TOKEN_CLS, peft.TaskType.QUESTION_ANS}

CARD = """\
---
{metadata}---

# {name}

A LoRA adapter for {base}, merged from other adapters with
[mergekit-spectral](https://pypi.org/project/mergekit-spectral/), method `{method}`.

Sources:

{sources}

Recipe:

```yaml
{recipe}
```
"""


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
    """Merge the LoRA inputs of a recipe into one adapter and print its ranks and losses.

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
    text = recipe.read_text(encoding="utf-8").strip()
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

    metadata = {
        "base_model": str(base),
        "library_name": "peft",
        "tags": ["lora", "merge", "mergekit", "mergekit-spectral"],
    }
    write_adapter(
        out,
        {weight.module: weight.layer for weight in merged},
        all_modules=merge.base.modules,
        base_model=str(base),
        dtype=dtype,
        task_type=_common_task(merge),
        rank_pattern=rank_pattern,
        card=CARD.format(
            metadata=yaml.safe_dump(metadata),
            name=out.resolve().name,
            base=_link(base),
            method=config.merge_method,
            sources="\n".join(f"- {adapter.name}" for adapter in merge.adapters),
            recipe=text,
        ),
    )
    size = (out / "adapter_model.safetensors").stat().st_size
    written = f"Adapter written to {out}: {len(merged)} weights, {size / 1e6:.1f} MB"
    _print(merged, (written, *_serving_notes(out)))


def _read(recipe: Path) -> MergeConfiguration:
    reading = read_recipe(recipe)
    if reading.recipe is None:
        first = find_errors(reading.findings)[0]
        raise MergeError(f"{first.place(recipe)}: {first.message}")
    return reading.recipe.config


def _common_task(merge: AdapterMerge) -> str | None:
    """Return the task type if all inputs have the same one and peft expects no head for it."""
    types = {adapter.config.task_type for adapter in merge.adapters}
    return types.pop() if len(types) == 1 and not types & _WITH_HEAD else None


def _link(model: ModelReference) -> str:
    """Return a model's name, as a link unless it is a local folder. The Hub is not asked."""
    path = model.model.path
    return str(model) if os.path.exists(path) else f"[{model}](https://huggingface.co/{path})"


def _serving_notes(out: Path) -> Iterator[str]:
    """Yield a line for each server that refuses the adapter, and one that names the command."""
    servings = check_servers(out)
    taken = [each.server for each in servings if each.takes]
    for each in servings:
        if not each.takes:
            yield f"{each.server} does not take it: {'; '.join(each.reasons)}."
    ready = f"Ready for peft{''.join(f', {server}' for server in taken)}; "
    yield f"{ready}`mergekit-spectral check {out}` prints how to serve it."


def _print(merged: Iterable[MergedWeight], notes: Sequence[str]) -> None:
    """Print ranks and losses by kind of weight, which is the last part of the module's name."""
    kinds: dict[str, list[MergedWeight]] = defaultdict(list)
    for weight in merged:
        kinds[weight.module.rsplit(".", 1)[-1]].append(weight)
    rows = []
    for kind, weights in kinds.items():
        ranks = sorted(weight.compressed.rank for weight in weights)
        losses = [max(0.0, 1 - weight.compressed.kept) for weight in weights]
        rows.append(
            (
                kind,
                str(len(weights)),
                str(ranks[0]) if ranks[0] == ranks[-1] else f"{ranks[0]}-{ranks[-1]}",
                f"{fmean(losses):.3%}",
                f"{max(losses):.3%}",
            )
        )
    header = ("weight", "count", "rank", "squared norm lost, mean", "squared norm lost, maximum")
    print_table("The merged adapter", header, rows, words=("weight",), notes=notes)
