"""Record what `mergekit-spectral demo` finds.

python -m benchmarks.demo [--work-dir merges/]
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from benchmarks.machine import write_json
from benchmarks.options import json_option
from mergekit_spectral.command_line.demo_run import run_and_print
from mergekit_spectral.demo.recipes import read_tasks


@click.command(help=__doc__)
@click.option(
    "--work-dir", type=click.Path(path_type=Path), help="As for the demo, which may be done there."
)
@json_option
def main(work_dir: Path | None, json_path: Path | None) -> None:
    """Run the demo, print its table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (work_dir or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = run_and_print(folder, Console(stderr=True))
    if json_path:
        tasks = [task.title for task in read_tasks()]
        write_json(json_path, tasks=tasks, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    main()
