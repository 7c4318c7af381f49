"""The command `tune`: measure each method's merges of the same fine-tunes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.machine import machine, versions
from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.training.settings import Kind
from benchmarks.quality.tuning.measure import Measurement, measure
from benchmarks.quality.tuning.tables import print_results
from mergekit_spectral.command_line.transformers_output import silence_transformers


def tune_all(
    folder: Path,
    kinds: Sequence[Kind],
    methods: Sequence[str],
    tasks: Sequence[str],
    counts: Sequence[int],
    samples: int,
    json_path: Path,
) -> None:
    """Measure merges of all tasks, and write the results.

    Args:
        folder: the checkpoints'.
        kinds: of fine-tunes.
        methods: by name.
        tasks: whose fine-tunes are merged.
        counts: numbers of examples of each task to tune on.
        samples: how many samples of each number.
        json_path: file of the results. Those of other merges in it are kept, and those of the
            same are replaced.

    Raises:
        click.ClickException: a fine-tune is missing.
        MergeError: a merge failed.
    """
    silence_transformers()
    checkpoints = Checkpoints(folder)
    checkpoints.require(kinds, tasks)
    found = json.loads(json_path.read_text())["merges"] if json_path.exists() else []
    for kind in kinds:
        for method in methods:
            merge = Merge(kind, method, tuple(tasks))
            click.echo(f"{kind}, {method}")
            work = checkpoints.folder / "tuning" / kind / merge.name
            measurement = Measurement(merge, checkpoints, work, click.echo)
            result = measure(measurement, counts, samples, click.echo)
            own = kind, method, list(tasks)
            found = [one for one in found if (one["kind"], one["method"], one["tasks"]) != own]
            found.append({**result, "machine": machine(), "versions": versions()})
            json_path.write_text(json.dumps({"merges": found}, indent=1) + "\n")
    print_results(found)


def print_file(path: Path) -> None:
    """Print the results in a file."""
    print_results(json.loads(path.read_text())["merges"])
