"""Time `mergekit-yaml` as a whole process: our methods against mergekit's own ties.

    python -m benchmarks.end_to_end [--inputs lora] [--layers 1] [--count 4] [--runs 3]

A Llama as wide as Llama 8B, but of few layers and with a small vocabulary, and its fine-tunes are
written once; then every method merges them in turn, each run a process of its own, after one round
that is not counted. LoRA inputs reach ties through mergekit's merged copies, which is measured
twice: with the copies to be made (what the first merge of a set of adapters takes) and with them in
place. Wall time is the median of the runs and their range; memory is the process's largest resident
set.

Before each run, all models and copies are put out of the page cache, so that what is read comes
from the disk. Bytes read are then those that the process had the disk bring, mapped files included;
what it wrote itself and reads again, such as new copies, comes from memory and is not among them.
Python's own libraries are among them as far as the system has dropped them from memory: some MB a
run, more after a run that needed much memory.
Bytes written are those that it handed to the file system, those it deleted again included. Both are
the operating system's count for the process (under Linux; "-" elsewhere). Bytes left are the sizes
of the files that a run leaves: the merged model and, for ties, new copies.

The floor is what no merge can beat on this disk: reading base and inputs once and writing the
merged model once, at the speed at which a file is read and written in each round. TMPDIR says which
disk that is.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
import yaml
from rich.console import Console

from benchmarks.disk import DiskSpeed, disk_speed, drop_from_cache, files_in, median_speed, size_of
from benchmarks.llama import build
from benchmarks.machine import machine_line, write_json
from benchmarks.processes import run_command
from mergekit_spectral.command_line.tables import print_table

# mergekit-yaml, as the package installs it.
COMMAND = [sys.executable, "-m", "mergekit.scripts.run_yaml"]
HEADER = (
    "method",
    "wall s",
    "range",
    "times faster",
    "peak MB",
    "read MB",
    "written MB",
    "left MB",
)


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    peak_bytes: int
    read_bytes: int | None
    written_bytes: int | None
    left_bytes: int


@dataclass(frozen=True)
class Floor:
    """What reading the inputs once and writing the output once takes."""

    read_bytes: int
    written_bytes: int
    disk: DiskSpeed

    @property
    def seconds(self) -> float:
        return self.read_bytes / self.disk.read + self.written_bytes / self.disk.write


@dataclass(frozen=True)
class Case:
    """One way to merge the inputs."""

    label: str
    recipe: Path
    cache: Path | None = None
    keep_cache: bool = False


def recipe(
    folder: Path,
    method: str,
    inputs: str,
    count: int,
    dtype: str,
    direction: str,
    kept: float | None = None,
) -> Path:
    """Write a recipe: density 0.5 and the direction where the method has them, else defaults.

    Args:
        folder: of the models, and for the recipe.
        method: the merge method.
        inputs: "full" or "lora".
        count: number of inputs.
        dtype: that is merged in.
        direction: of joint decompositions.
        kept: the share of directions that are kept; None for all.
    """
    prefix = f"{folder / 'base'}+" if inputs == "lora" else ""
    models = [{"model": f"{prefix}{folder / f'input-{number}'}"} for number in range(count)]
    path = folder / f"{method}.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "merge_method": method,
                "base_model": str(folder / "base"),
                "models": models,
                "parameters": {
                    "weight": 1.0,
                    "density": 0.5,
                    "direction": direction,
                    **({} if kept is None else {"rank": kept}),
                },
                "dtype": dtype,
            }
        )
    )
    return path


def cases(
    folder: Path, methods: list[str], inputs: str, count: int, dtype: str, direction: str
) -> Iterator[Case]:
    """Yield the cases in the order in which they run."""
    for method in methods:
        path = recipe(folder, method, inputs, count, dtype, direction)
        if inputs == "lora" and method == "ties":
            yield Case("ties, first merge", path, folder / "cache")
            yield Case("ties, copies in place", path, folder / "cache", keep_cache=True)
        else:
            yield Case(method, path)


def run(case: Case, models: Sequence[Path], out: Path, device: str) -> Run:
    """Run one case in a process of its own, on models that are not in the page cache."""
    options = ["--quiet", "--no-copy-tokenizer"] + (["--cuda"] if device == "cuda" else [])
    copies: list[Path] = []
    if case.cache is not None:
        options += ["--lora-merge-cache", str(case.cache)]
        if not case.keep_cache:
            shutil.rmtree(case.cache, ignore_errors=True)
        copies = files_in(case.cache)
    shutil.rmtree(out, ignore_errors=True)
    before = size_of(copies)
    cold = drop_from_cache([*models, *copies])
    command = [*COMMAND, str(case.recipe), str(out), *options]
    taken = run_command(case.label, command)
    left = size_of(files_in(out)) + (size_of(files_in(case.cache)) - before if case.cache else 0)
    return Run(
        taken.seconds,
        taken.peak_bytes,
        taken.read_bytes if cold else None,
        taken.written_bytes,
        left,
    )


def print_results(results: dict[str, list[Run]], floor: Floor, title: str) -> None:
    """Print medians, and ratios to the first case."""
    medians = {label: _medians(runs) for label, runs in results.items()}
    first = next(iter(medians.values()))
    rows = []
    for label, row in medians.items():
        seconds = [run.seconds for run in results[label]]
        rows.append(
            [
                label,
                f"{row.seconds:.1f}",
                f"{min(seconds):.1f}-{max(seconds):.1f}",
                f"{first.seconds / row.seconds:.2f}",
                *map(_megabytes, (row.peak_bytes, row.read_bytes, row.written_bytes)),
                _megabytes(row.left_bytes),
            ]
        )
    read, written = _megabytes(floor.read_bytes), _megabytes(floor.written_bytes)
    faster = f"{first.seconds / floor.seconds:.2f}"
    rows.append(["floor", f"{floor.seconds:.1f}", "-", faster, "-", read, written, written])
    disk = f"disk: {floor.disk.read / 1e6:.0f} MB/s read, {floor.disk.write / 1e6:.0f} MB/s written"
    print_table(title, HEADER, rows, words=("method",), notes=[disk, machine_line()])


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"


def _medians(runs: list[Run]) -> Run:
    def median(sizes: list[int | None]) -> int | None:
        known = [size for size in sizes if size is not None]
        return int(statistics.median(known)) if known else None

    return Run(
        statistics.median(run.seconds for run in runs),
        int(statistics.median(run.peak_bytes for run in runs)),
        median([run.read_bytes for run in runs]),
        median([run.written_bytes for run in runs]),
        int(statistics.median(run.left_bytes for run in runs)),
    )


@click.command(help=__doc__)
@click.option("--inputs", type=click.Choice(["lora", "full"]), default="lora", show_default=True)
@click.option("--layers", default=1, show_default=True, help="Layers of the model.")
@click.option("--width", default=4096, show_default=True, help="Of the model, a multiple of 128.")
@click.option("--count", default=4, show_default=True, help="Inputs to merge.")
@click.option("--rank", default=16, show_default=True, help="Of LoRA inputs.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Of model and merge.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--methods", default="ties,knots_ties,drm,star,iso,tsvm,actmat", show_default=True)
@click.option(
    "--direction",
    type=click.Choice(["horizontal", "vertical", "auto"]),
    default="auto",
    show_default=True,
    help="For the methods that have that parameter.",
)
@click.option("--runs", default=3, show_default=True, help="Counted runs of each case.")
@click.option("--warm-ups", default=1, show_default=True, help="Runs before, not counted.")
@click.option("--disk-mb", default=300, show_default=True, help="Size of the disk's test file.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write figures.")
def main(
    inputs: str,
    layers: int,
    width: int,
    count: int,
    rank: int,
    dtype: str,
    device: str,
    methods: str,
    direction: str,
    runs: int,
    warm_ups: int,
    disk_mb: int,
    json_path: Path | None,
) -> None:
    """Build the models, run the cases in turn, print the table."""
    console = Console(stderr=True)
    speeds = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with console.status("Writing the models"):
            build(folder, inputs, layers, width, count, rank, getattr(torch, dtype))
        models = files_in(folder)
        todo = list(cases(folder, methods.split(","), inputs, count, dtype, direction))
        results: dict[str, list[Run]] = {case.label: [] for case in todo}
        for round_number in range(warm_ups + runs):
            speeds.append(disk_speed(folder, disk_mb * 10**6))
            for case in todo:
                with console.status(f"Round {round_number + 1} of {warm_ups + runs}: {case.label}"):
                    taken = run(case, models, folder / "out", device)
                if round_number >= warm_ups:
                    results[case.label].append(taken)
        merged, needed = size_of(files_in(folder / "out")), size_of(models)
    disk = median_speed(speeds)
    floor = Floor(needed, merged, disk)
    what = f"rank {rank} LoRA" if inputs == "lora" else "full fine-tunes"
    title = f"{count} {what} in {dtype}, {layers} layers of {width} x {width * 7 // 2}, {device}"
    print_results(results, floor, title)
    if json_path:
        figures = {label: [asdict(each) for each in runs] for label, runs in results.items()}
        least = {"seconds": floor.seconds, **asdict(floor)}
        write_json(json_path, title=title, floor=least, runs=figures)


if __name__ == "__main__":
    main()
