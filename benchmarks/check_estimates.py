"""Compare what `mergekit-spectral check` expects of a merge with what the merge takes.

    python -m benchmarks.check_estimates [--layers 1] [--width 2048] [--count 4]

Models as of `benchmarks.end_to_end`, full fine-tunes and LoRA adapters, are merged by recipes of
different kinds, each once, after the check. Memory is the process's largest resident set, time is
wall time with the files in the page cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from rich.console import Console

from benchmarks.end_to_end import Case, recipe, run
from benchmarks.llama import build
from benchmarks.machine import machine_line, write_json
from benchmarks.options import json_option
from mergekit_spectral.command_line.tables import print_table

RECIPES = (
    *(("lora", method, None) for method in ("drm", "star", "iso", "tsvm", "actmat")),
    *(("full", method, None) for method in ("ties", "drm", "knots_ties", "iso", "tsvm", "actmat")),
    *(("full", method, 0.25) for method in ("drm", "knots_ties")),
)
"""Inputs, method, and the share of the directions that are kept, if it is set."""
HEADER = ("inputs", "method", "expected s", "s", "ratio", "expected MB", "MB", "ratio")


@dataclass(frozen=True)
class Expected:
    """What the check says."""

    seconds: float
    peak_bytes: int


def expected(path: Path) -> Expected:
    """Run the check in a process of its own."""
    command = [sys.executable, "-m", "mergekit_spectral", "check", str(path)]
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise click.ClickException(f"the check failed:\n{result.stdout}{result.stderr}")
    costs = json.loads(result.stdout)["costs"]
    return Expected(costs["seconds"], costs["memory"]["host"])


@click.command(help=__doc__)
@click.option("--layers", default=1, show_default=True, help="Layers of the model.")
@click.option("--width", default=2048, show_default=True, help="Of the model, a multiple of 128.")
@click.option("--count", default=4, show_default=True, help="Inputs to merge.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Of model and merge.")
@json_option
def main(layers: int, width: int, count: int, dtype: str, json_path: Path | None) -> None:
    """Build the models, check and merge each recipe, print the table."""
    console = Console(stderr=True)
    rows, cases = [], []
    for inputs in ("lora", "full"):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            build(folder, inputs, layers, width, count, 16, getattr(torch, dtype))
            for kind, method, kept in RECIPES:
                if kind == inputs:
                    path = recipe(folder, method, inputs, count, dtype, "auto", kept)
                    with console.status(f"{method} of {inputs} inputs"):
                        hoped = expected(path)
                        taken = run(Case(method, path), (), folder / "out", "cpu")
                    case = {"inputs": inputs, "method": method, "kept": kept}
                    cases.append({**case, "expected": asdict(hoped), "taken": asdict(taken)})
                    rows.append(
                        (
                            inputs,
                            method if kept is None else f"{method}, rank {kept}",
                            f"{hoped.seconds:.1f}",
                            f"{taken.seconds:.1f}",
                            f"{hoped.seconds / taken.seconds:.2f}",
                            f"{hoped.peak_bytes / 1e6:.0f}",
                            f"{taken.peak_bytes / 1e6:.0f}",
                            f"{hoped.peak_bytes / taken.peak_bytes:.2f}",
                        )
                    )
    print_table(
        f"What the check expects: {count} inputs, {layers} layers of width {width}, {dtype}",
        HEADER,
        rows,
        words=("inputs", "method"),
        notes=[machine_line()],
    )
    if json_path:
        write_json(json_path, layers=layers, width=width, count=count, dtype=dtype, cases=cases)


if __name__ == "__main__":
    main()
