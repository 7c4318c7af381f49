"""Time `mergekit-yaml` as a whole process: our methods against mergekit's own ties.

    python benchmarks/end_to_end.py [--inputs lora] [--layers 1] [--count 4] [--runs 3]

A Llama as wide as Llama 8B, but of few layers and with a small vocabulary, and its fine-tunes are
written once; then every method merges them in turn, each run a process of its own, after one round
that is not counted. LoRA inputs reach ties through mergekit's merged copies, which is measured
twice: with the copies to be made (what the first merge of a set of adapters takes) and with them in
place. Wall time is the median of the runs and their range; memory is the process's largest resident
set; bytes written are the sizes of the files that a run leaves.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import peft
import torch
import transformers
import yaml
from rich.console import Console
from rich.table import Table

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# mergekit-yaml, as the package installs it.
COMMAND = [sys.executable, "-m", "mergekit.scripts.run_yaml"]


@dataclass(frozen=True)
class Run:
    """What one process took."""

    seconds: float
    peak_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class Case:
    """One way to merge the inputs."""

    label: str
    recipe: Path
    cache: Path | None = None
    keep_cache: bool = False


def build(
    folder: Path, inputs: str, layers: int, count: int, rank: int, dtype: torch.dtype
) -> None:
    """Write base and inputs: folders `base` and `input-0` to `input-{count - 1}`."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=512,
        max_position_embeddings=512,
    )
    base = transformers.LlamaForCausalLM(config).to(dtype)
    base.save_pretrained(folder / "base")
    if inputs == "lora":
        adapter = peft.LoraConfig(r=rank, target_modules=list(LINEAR), init_lora_weights=False)
        adapted = peft.get_peft_model(base, adapter)
    for number in range(count):
        torch.manual_seed(number + 1)
        if inputs == "lora":
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.data.normal_(std=0.01)
            adapted.save_pretrained(folder / f"input-{number}")
        else:
            state = {
                key: (value + 1e-3 * torch.randn_like(value)).to(dtype)
                for key, value in base.state_dict().items()
            }
            base.save_pretrained(folder / f"input-{number}", state_dict=state)


def recipe(folder: Path, method: str, inputs: str, count: int, dtype: str) -> Path:
    """Write a recipe: density 0.5 where the method has one, all else at its default."""
    prefix = f"{folder / 'base'}+" if inputs == "lora" else ""
    models = [{"model": f"{prefix}{folder / f'input-{number}'}"} for number in range(count)]
    path = folder / f"{method}.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "merge_method": method,
                "base_model": str(folder / "base"),
                "models": models,
                "parameters": {"weight": 1.0, "density": 0.5},
                "dtype": dtype,
            }
        )
    )
    return path


def cases(folder: Path, methods: list[str], inputs: str, count: int, dtype: str) -> Iterator[Case]:
    """Yield the cases in the order in which they run."""
    for method in methods:
        path = recipe(folder, method, inputs, count, dtype)
        if inputs == "lora" and method == "ties":
            yield Case("ties, first merge", path, folder / "cache")
            yield Case("ties, copies in place", path, folder / "cache", keep_cache=True)
        else:
            yield Case(method, path)


def run(case: Case, out: Path, device: str) -> Run:
    """Run one case in a process of its own."""
    options = ["--quiet", "--no-copy-tokenizer"] + (["--cuda"] if device == "cuda" else [])
    if case.cache is not None:
        options += ["--lora-merge-cache", str(case.cache)]
        if not case.keep_cache:
            shutil.rmtree(case.cache, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    before = _size(case.cache) if case.cache else 0
    start = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, str(case.recipe), str(out), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _pid, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise click.ClickException(f"{case.label} failed: {' '.join(map(str, process.args))}")
    written = _size(out) + (_size(case.cache) - before if case.cache else 0)
    return Run(seconds, usage.ru_maxrss * 1024, written)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def table(results: dict[str, list[Run]], title: str) -> Table:
    """Medians, and ratios to the first case."""
    rows = {label: _medians(runs) for label, runs in results.items()}
    first = next(iter(rows.values()))
    result = Table(title=title)
    for column in ("method", "wall s", "range", "times faster", "peak MB", "written MB"):
        result.add_column(column, justify="left" if column == "method" else "right")
    for label, row in rows.items():
        seconds = [run.seconds for run in results[label]]
        result.add_row(
            label,
            f"{row.seconds:.1f}",
            f"{min(seconds):.1f}-{max(seconds):.1f}",
            f"{first.seconds / row.seconds:.2f}",
            f"{row.peak_bytes / 1e6:.0f}",
            f"{row.written_bytes / 1e6:.0f}",
        )
    return result


def _medians(runs: list[Run]) -> Run:
    return Run(
        statistics.median(run.seconds for run in runs),
        int(statistics.median(run.peak_bytes for run in runs)),
        int(statistics.median(run.written_bytes for run in runs)),
    )


@click.command(help=__doc__)
@click.option("--inputs", type=click.Choice(["lora", "full"]), default="lora", show_default=True)
@click.option("--layers", default=1, show_default=True, help="Layers of the model.")
@click.option("--count", default=4, show_default=True, help="Inputs to merge.")
@click.option("--rank", default=16, show_default=True, help="Of LoRA inputs.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Of model and merge.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--methods", default="ties,knots_ties,drm,star", show_default=True)
@click.option("--runs", default=3, show_default=True, help="Counted runs of each case.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write figures.")
def main(
    inputs: str,
    layers: int,
    count: int,
    rank: int,
    dtype: str,
    device: str,
    methods: str,
    runs: int,
    json_path: Path | None,
) -> None:
    """Build the models, run the cases in turn, print the table."""
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with console.status("Writing the models"):
            build(folder, inputs, layers, count, rank, getattr(torch, dtype))
        todo = list(cases(folder, methods.split(","), inputs, count, dtype))
        results: dict[str, list[Run]] = {case.label: [] for case in todo}
        for round_number in range(runs + 1):
            for case in todo:
                with console.status(f"Round {round_number} of {runs}: {case.label}"):
                    taken = run(case, folder / "out", device)
                if round_number:
                    results[case.label].append(taken)
    what = f"rank {rank} LoRA" if inputs == "lora" else "full fine-tunes"
    title = f"{count} {what} in {dtype}, {layers} layers of 4096 x 14336, {device}"
    console.print(table(results, title))
    console.print(f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    if json_path:
        figures = {label: [asdict(each) for each in runs] for label, runs in results.items()}
        json_path.write_text(json.dumps({"title": title, "runs": figures}, indent=1))


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    main()
