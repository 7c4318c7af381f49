"""Print what the recipes for models of the Hub take, by the estimates of `mergekit-spectral check`.

    python -m benchmarks.recipes [--write]

prints the lines that the head of each recipe has to have, and writes them into the recipes. A test
compares them.

Nothing is merged. Bases, fine-tunes and adapters are files with true headers and without contents:
models in bfloat16, adapters in float32, as peft mostly writes them. The sizes of the models are in
`hub_models.py`; tokens that fine-tunes add are left out. Times are those of cores of an AMD EPYC
whose speed is recorded below, so that they are the same on all machines.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from mergekit.options import MergeOptions

from benchmarks import hub_models
from benchmarks.memory import write_adapter, write_model
from mergekit_spectral.checking.checks import plan_whole_merge
from mergekit_spectral.checking.memory import find_memory_peak
from mergekit_spectral.checking.report import duration
from mergekit_spectral.checking.timing import DISK_BYTES, PARALLEL, Speeds, estimate_seconds
from mergekit_spectral.methods.costs import Work
from mergekit_spectral.scaling.parts import cut
from mergekit_spectral.scaling.resources import PROCESS_BYTES

ROOT = Path(__file__).parents[1]
RECIPES = tuple(
    path.relative_to(ROOT).as_posix()
    for family in ("llama", "mistral")
    for path in sorted((ROOT / "recipes" / family).glob("*.yml"))
)
TAKES = re.compile(r"^# Takes.*:\n((?:#   (?:download|8 cores|24 GB).*\n)*)", re.MULTILINE)
"""Where a recipe's head has these lines."""
CORES = 8
CORE = Speeds(products=5.1e10, cubes=3.5e9, entries=1.5e8)
"""What `checking/timing.py` measured in one thread on an AMD EPYC, with `tsvm` for the entries."""
ENTRIES = {"tsvm": 1.5e8, "iso": 1.9e8, "ties": 1.0e7}
"""The speed of a method's entries, measured in the same way."""


@dataclass(frozen=True)
class Estimate:
    """What a recipe takes, in bytes and seconds.

    Attributes:
        downloads: bytes of all models.
        result: bytes of the merged model.
        seconds: of `mergekit-yaml` on the CPU.
        memory: its memory, without pages of the inputs' files.
        run_seconds: of `run` with a worker for each core.
        run_memory: its memory, likewise.
        device_memory: of a GPU with --cuda.
        main_memory: main memory with --cuda.
        moving_seconds: the part of all these times in which files are read and written.
    """

    downloads: int
    result: int
    seconds: float
    memory: int
    run_seconds: float
    run_memory: int
    device_memory: int
    main_memory: int
    moving_seconds: float

    def lines(self) -> str:
        """Return the lines of a recipe's head."""
        lines = [
            f"#   download {_gigabytes(self.downloads)}, result {_gigabytes(self.result)}",
            f"#   {CORES} cores, mergekit-yaml: about {duration(self.seconds)}, "
            f"{_gigabytes(self.memory)} of memory",
            f"#   {CORES} cores, mergekit-spectral run: about {duration(self.run_seconds)}, "
            f"{_gigabytes(self.run_memory)} of memory",
            f"#   24 GB GPU, --cuda: {_gigabytes(self.device_memory)} of its memory, "
            f"{_gigabytes(self.main_memory)} of main memory; time unknown, at least "
            f"{duration(self.moving_seconds)}",
        ]
        return "".join(f"{line}\n" for line in lines)


def estimate(recipe: dict[str, Any], folder: Path) -> Estimate:
    """Estimate what a recipe takes.

    Args:
        recipe: of models of the Hub that `hub_models.py` describes.
        folder: an empty one, for models without contents.
    """
    merge, _ = plan_whole_merge(_write(recipe, folder), MergeOptions(device="cpu"), folder / "out")
    on_gpu = replace(merge, options=MergeOptions(device="cuda"))
    parts = cut(merge)
    moved = sum(part.read_bytes + part.written_bytes for part in parts)
    result = sum(part.written_bytes for part in parts)
    work = sum((part.work for part in parts), Work())
    core = replace(CORE, entries=ENTRIES[merge.recipe.config.merge_method])
    together = Speeds(
        products=core.products * _gain("products"),
        cubes=core.cubes * _gain("cubes"),
        entries=core.entries * _gain("entries"),
    )
    workers = sum(part.seconds(core) for part in parts) / CORES
    worker = PROCESS_BYTES + max(part.memory for part in parts)
    here = find_memory_peak(merge, PROCESS_BYTES)
    on_device = find_memory_peak(on_gpu, PROCESS_BYTES)
    files = {file for model in merge.models.values() for file in model.files}
    return Estimate(
        downloads=sum(file.stat().st_size for file in files),
        result=result,
        seconds=estimate_seconds(work, together, moved, 0),
        memory=here.host - here.mapped,
        run_seconds=workers + 2 * result / DISK_BYTES,  # the model is put together from parts
        run_memory=PROCESS_BYTES + CORES * worker,
        device_memory=on_device.device,
        main_memory=on_device.host - on_device.mapped,
        moving_seconds=moved / DISK_BYTES,
    )


def _write(recipe: dict[str, Any], folder: Path) -> Path:
    """Write a recipe's models without contents, and the recipe that merges them."""
    base = recipe["base_model"]
    shapes = write_model(folder / base, hub_models.configuration(base))
    models = []
    for entry in recipe["models"]:
        model, _, added = entry["model"].partition("+")
        if added:
            known = hub_models.adapter(added)
            write_adapter(folder / added, shapes, known.rank, known.targets, torch.float32)
        else:
            (folder / model).parent.mkdir(exist_ok=True)
            (folder / model).symlink_to(folder / base)
        reference = f"{folder / model}+{folder / added}" if added else str(folder / model)
        models.append({**entry, "model": reference})
    # Without the recipe's tokenizer, since these models have none.
    kept = {key: recipe[key] for key in ("merge_method", "parameters", "dtype")}
    path = folder / "recipe.yml"
    path.write_text(yaml.safe_dump({**kept, "base_model": str(folder / base), "models": models}))
    return path


def _gain(kind: str) -> float:
    share = PARALLEL[kind]
    return 1 / (1 - share + share / CORES)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.0f} GB" if count >= 2e10 else f"{count / 1e9:.1f} GB"


def lines_of(path: str) -> str:
    """Return the lines that the head of a recipe has to have."""
    recipe = yaml.safe_load((ROOT / path).read_text())
    with tempfile.TemporaryDirectory() as folder:
        return estimate(recipe, Path(folder)).lines()


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Write the lines into the recipes.")
def main(write: bool) -> None:
    """Print the lines."""
    for path in RECIPES:
        own, text = lines_of(path), (ROOT / path).read_text()
        click.echo(f"{path}\n{own}")
        if write:
            ((start, end),) = (found.span(1) for found in TAKES.finditer(text))
            (ROOT / path).write_text(text[:start] + own + text[end:])


if __name__ == "__main__":
    main()
