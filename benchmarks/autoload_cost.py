"""Measure what the autoload hook adds to ``import torch``.

    python benchmarks/autoload_cost.py [--runs 15]

Two figures. Inside: the time from PyTorch's call of the entry point to its return, which is all
that the hook does. Outside: whole processes that import torch, with the hook
and without (``TORCH_DEVICE_BACKEND_AUTOLOAD=0``), in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import click

INSIDE = """
import time
from importlib.metadata import entry_points
import torch
(entry,) = entry_points(group="torch.backends", name="mergekit_spectral")
start = time.perf_counter()
entry.load()()
print(time.perf_counter() - start)
"""
OFF = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}


def inside() -> float:
    """Return the seconds that loading and calling the entry point takes in a fresh process."""
    command = [sys.executable, "-c", INSIDE]
    return float(subprocess.check_output(command, env={**os.environ, **OFF}))


def outside(**variables: str) -> float:
    """Return the seconds of a whole process that imports torch."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], env=os.environ | variables, check=True)
    return time.perf_counter() - start


@click.command(help=__doc__)
@click.option("--runs", default=15, show_default=True, help="How often each figure is taken.")
def main(runs: int) -> None:
    """Print the medians."""
    outside()
    figures = [(inside(), outside(), outside(**OFF)) for _ in range(runs)]
    hook, on, off = zip(*figures, strict=True)
    differences = [a - b for a, b in zip(on, off, strict=True)]
    click.echo(f"the hook itself       {1e3 * statistics.median(hook):7.1f} ms")
    click.echo(f"import torch with it  {1e3 * statistics.median(on):7.1f} ms")
    click.echo(f"import torch without  {1e3 * statistics.median(off):7.1f} ms")
    click.echo(f"median difference     {1e3 * statistics.median(differences):7.1f} ms")
    click.echo(f"(medians of {runs} runs; {os.cpu_count()} cores)")


if __name__ == "__main__":
    main()
