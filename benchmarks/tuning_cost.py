"""What `mergekit-spectral tune` costs: time against merging anew, memory against one model.

    python -m benchmarks.tuning_cost [--kind lora] [--tasks numbers,plurals,sentiment]

Tunes λ for fine-tunes of the quality suite, on validation examples of their own tasks, with each
command a process of its own. Time: the whole tuning, which also scores the base, the inputs and
the recipe, and reports; and what one more λ takes, from a tuning of one λ and one of all. Beside
them, `mergekit-yaml` for one λ. Memory: the largest that the tuning, `mergekit-yaml`, and
a process that loads the base and scores the same examples had for themselves, and their largest
resident sets, which include pages of mapped files.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import yaml

from benchmarks.end_to_end import COMMAND
from benchmarks.machine import machine_line, write_json
from benchmarks.processes import Taken, run_command
from benchmarks.quality.checkpoints import Checkpoints, default_folder
from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.tasks.task import validation_examples
from benchmarks.quality.tuning.measure import question
from mergekit_spectral.command_line.option_types import Listed
from mergekit_spectral.command_line.tables import print_table

TUNE = [sys.executable, "-m", "mergekit_spectral", "tune"]
SCORE = """
import sys
from pathlib import Path
import torch
from transformers import AutoTokenizer
from mergekit_spectral.tuning.examples import read_data_set
from mergekit_spectral.tuning.models import load_model
from mergekit_spectral.tuning.scoring import prepare, score
base, *files = map(Path, sys.argv[1:])
model = load_model(base, torch.float32, torch.device("cpu"), False)
tokenizer = AutoTokenizer.from_pretrained(base)
for file in files:
    data = read_data_set(file)
    score(model, prepare(data, data.examples, tokenizer, 2048))
"""


def write_data(folder: Path, tasks: Sequence[str], count: int) -> list[Path]:
    """Write validation examples of each task."""
    files = []
    for name in tasks:
        task, path = TASKS[name], folder / f"{name}.jsonl"
        questions = [question(task, one) for one in validation_examples(task, count)]
        lines = [{k: v for k, v in asdict(each).items() if v} for each in questions]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        files.append(path)
    return files


@click.command(help=__doc__)
@click.option("--kind", type=click.Choice(["lora", "full"]), default="lora", show_default=True)
@click.option("--method", default="drm", show_default=True)
@click.option("--tasks", type=Listed(click.STRING), default="numbers,plurals,sentiment")
@click.option("--examples", default=50, show_default=True, help="Of each task.")
@click.option("--runs", default=3, show_default=True, help="Runs of each command.")
@click.option("--cache", type=click.Path(path_type=Path), default=default_folder)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write figures.")
def main(
    kind: str,
    method: str,
    tasks: list[str],
    examples: int,
    runs: int,
    cache: Path,
    json_path: Path | None,
) -> None:
    """Run each command several times, print the table."""
    checkpoints = Checkpoints(cache)
    merge = Merge("lora" if kind == "lora" else "full", method, tuple(tasks))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = folder / "recipe.yml"
        recipe.write_text(yaml.safe_dump(merge.recipe(checkpoints), sort_keys=False))
        files = write_data(folder, tasks, examples)
        data = [f"--data={file}={number}" for number, file in enumerate(files, start=1)]
        copies = f"--lora-merge-cache={folder / 'copies'}"
        options = [copies, "--lora-merge-dtype", "float32", "--no-write-model-card", "--quiet"]
        taken: dict[str, list[Taken]] = {}
        scales = 0
        for number in range(runs):
            out = folder / f"tuned-{number}"
            commands = {
                "tune": [*TUNE, str(recipe), *data, f"--out={out}"],
                "tune, one λ": [*TUNE, str(recipe), *data, f"--out={out}-one", "--lambda=1:1"],
                "mergekit-yaml": [
                    *COMMAND,
                    str(recipe),
                    str(folder / f"merged-{number}"),
                    *options,
                ],
                "load and score": [
                    sys.executable,
                    "-c",
                    SCORE,
                    str(checkpoints.base),
                    *map(str, files),
                ],
            }
            for name, command in commands.items():
                taken.setdefault(name, []).append(run_command(name, command))
            searched = json.loads((out / "report.json").read_text())["searched"]
            scales = len({one["scale"] for one in searched})
    rows = []
    for name, each in taken.items():
        seconds = [one.seconds for one in each]
        peak = statistics.median(one.peak_bytes for one in each) / 1e6
        spread = f"{min(seconds):.1f}-{max(seconds):.1f}"
        own = statistics.median(one.own_bytes or math.nan for one in each) / 1e6
        rows.append(
            [name, f"{statistics.median(seconds):.1f}", spread, f"{own:.0f}", f"{peak:.0f}"]
        )
    whole, one, anew = (
        statistics.median(each.seconds for each in taken[name])
        for name in ("tune", "tune, one λ", "mergekit-yaml")
    )
    more = (whole - one) / (scales - 1)
    print_table(
        f"{method} of {len(tasks)} {kind} fine-tunes, {examples} examples each",
        ("command", "wall s", "range", "own MB", "resident MB"),
        rows,
        words=("command",),
        notes=[
            f"{scales} values of λ: tune {whole:.1f} s; as many merges {anew * scales:.1f} s "
            f"({anew * scales / whole:.1f} times)",
            f"one more λ: tune {more:.2f} s, scored; a merge {anew:.1f} s, not scored "
            f"({anew / more:.1f} times)",
            machine_line(),
        ],
    )
    if json_path:
        figures = {name: [asdict(one) for one in each] for name, each in taken.items()}
        write_json(json_path, kind=kind, method=method, tasks=tasks, scales=scales, runs=figures)


if __name__ == "__main__":
    main()
