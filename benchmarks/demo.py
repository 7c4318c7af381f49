"""Record what `mergekit-spectral demo` finds.

python -m benchmarks.demo [--work-dir merges/]
"""

from __future__ import annotations

import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from benchmarks.machine import write_json
from benchmarks.options import json_option
from mergekit_spectral.command_line.demo_run import Steps, print_rows
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.demo.recipes import read_tasks
from mergekit_spectral.demo.run import STEPS, run_demo


@click.command(help=__doc__)
@click.option(
    "--work-dir", type=click.Path(path_type=Path), help="As for the demo, which may be done there."
)
@json_option
def main(work_dir: Path | None, json_path: Path | None) -> None:
    """Run the demo, print its table."""
    silence_transformers()
    steps, start = Steps(Console(stderr=True), STEPS), time.perf_counter()
    with nullcontext(work_dir) if work_dir else tempfile.TemporaryDirectory() as folder:
        rows = run_demo(Path(folder), steps.step)
    print_rows(rows, read_tasks(), time.perf_counter() - start)
    if json_path:
        tasks = [task.title for task in read_tasks()]
        write_json(json_path, tasks=tasks, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    main()
