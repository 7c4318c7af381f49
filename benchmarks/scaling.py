"""Time `mergekit-spectral run` with more and more workers, against `mergekit-yaml`.

    python -m benchmarks.scaling [--inputs full] [--method drm] [--workers 1,2] [--nodes 1,2]

A Llama as wide as Llama 8B, but of few layers and with a small vocabulary, and its fine-tunes are
written once, in bfloat16. Then, in turn: mergekit-yaml with its own ties and with the method, and
run with each number of workers and, with --nodes, on Ray clusters on this machine whose nodes have
one core each, besides one that computes nothing. Each run is a process of its own, with the models
in the page cache. Clusters are started before the time is taken; their workers import what they
need within it. Speedups are relative to the first of the same kind. Memory is the largest that the
process and those that it started had for themselves, without pages of files; nodes of a cluster are
not among them.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.end_to_end import COMMAND, recipe
from benchmarks.llama import build
from benchmarks.machine import machine_line, write_json
from benchmarks.processes import Taken, run_command
from mergekit_spectral.command_line.option_types import Listed
from mergekit_spectral.command_line.tables import print_table

RUN = [sys.executable, "-m", "mergekit_spectral", "run"]
OPTIONS = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet"]
OBJECT_STORE = 100 * 2**20


@contextmanager
def cluster(nodes: int) -> Iterator[str]:
    """Start a Ray cluster on this machine, and give its address."""
    from ray.cluster_utils import Cluster

    settings: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
    started = Cluster(True, head_node_args={"num_cpus": 0, **settings})
    try:
        for _ in range(nodes):
            started.add_node(num_cpus=1, **settings)
        yield str(started.address)
    finally:
        started.shutdown()  # type: ignore[no-untyped-call]


def measure(
    folder: Path,
    inputs: str,
    methods: Sequence[str],
    kept: float | None,
    workers: Sequence[int],
    nodes: Sequence[int],
) -> Iterator[tuple[str, str, Taken]]:
    """Yield what each command takes, with the kind that it is compared to the first of."""
    count = len(list(folder.glob("input-*")))
    out = folder / "merged"
    for method in methods:
        path = recipe(folder, method, inputs, count, "bfloat16", "auto", kept)
        copies = ["--lora-merge-cache", str(folder / "copies")] if inputs == "lora" else []
        command = [*COMMAND, str(path), str(out), *OPTIONS, *copies]
        yield "mergekit-yaml", f"mergekit-yaml, {method}", run_command(method, command)
        shutil.rmtree(out)
    for number, by_ray in [*((each, False) for each in workers), *((each, True) for each in nodes)]:
        with cluster(number) if by_ray else nullcontext() as address:
            how = ["--ray", address] if address else ["--workers", str(number)]
            label = f"run, Ray, {number} nodes" if by_ray else f"run, {number} workers"
            taken = run_command(label, [*RUN, str(path), str(out), *OPTIONS, *how])
        yield label.rpartition(", ")[0], label, taken
        shutil.rmtree(out)


@click.command(help=__doc__)
@click.option("--inputs", type=click.Choice(["full", "lora"]), default="full", show_default=True)
@click.option("--method", default="drm", show_default=True)
@click.option("--workers", type=Listed(click.INT), default="1,2", show_default=True)
@click.option("--nodes", type=Listed(click.INT), default=[], help="Nodes of Ray clusters.")
@click.option("--kept", type=float, help="Share of the directions that are kept.")
@click.option("--layers", default=1, show_default=True)
@click.option("--width", default=4096, show_default=True)
@click.option("--count", default=4, show_default=True, help="Inputs.")
@click.option("--rank", default=16, show_default=True, help="Of adapters.")
@click.option("--runs", default=1, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write figures.")
def main(
    inputs: str,
    method: str,
    workers: list[int],
    nodes: list[int],
    kept: float | None,
    layers: int,
    width: int,
    count: int,
    rank: int,
    runs: int,
    json_path: Path | None,
) -> None:
    """Run each command, print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build(folder, inputs, layers, width, count, rank, torch.bfloat16)
        taken: dict[tuple[str, str], list[Taken]] = {}
        methods = list(dict.fromkeys(("ties", method)))
        for _ in range(runs):
            for kind, label, one in measure(folder, inputs, methods, kept, workers, nodes):
                taken.setdefault((kind, label), []).append(one)
    seconds = {key: statistics.median(one.seconds for one in each) for key, each in taken.items()}
    by_ties, by_method = (
        seconds["mergekit-yaml", f"mergekit-yaml, {each}"] for each in ("ties", method)
    )
    rows = []
    for (kind, label), each in taken.items():
        own = statistics.median(one.own_bytes or 0 for one in each) / 1e6
        first = next(time for (other, _), time in seconds.items() if other == kind)
        time = seconds[kind, label]
        faster = "" if kind == "mergekit-yaml" else f"{first / time:.2f}"
        ratios = (f"{time / by_method:.2f}", f"{time / by_ties:.2f}")
        rows.append([label, f"{time:.1f}", *ratios, faster, f"{own:.0f}"])
    print_table(
        f"{method} of {count} {inputs} inputs, width {width}, {layers} layers, bfloat16"
        + f", rank {kept}" * (kept is not None),
        ("command", "wall s", "/ mergekit-yaml", "/ ties", "speedup", "own MB"),
        rows,
        words=("command",),
        notes=[machine_line()],
    )
    if json_path:
        figures = {label: [asdict(one) for one in each] for (_, label), each in taken.items()}
        write_json(json_path, inputs=inputs, method=method, width=width, kept=kept, runs=figures)


if __name__ == "__main__":
    main()
