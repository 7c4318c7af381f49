"""The tables of the command `ranks`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from benchmarks.quality.ranks.measure import Adapter
from benchmarks.quality.tasks import TASKS
from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.host.recipe_check import find_spectral_method


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        demo: whether the adapters are the demo's.
        side: of the tasks, from which the examples are.
        count: how many of each task.
        tasks: by name.
        alone: accuracy of each single adapter on its own task.
        merged: merged adapters.
    """

    demo: bool
    side: str
    count: int
    tasks: tuple[str, ...]
    alone: Mapping[str, float]
    merged: tuple[Adapter, ...]

    def find(self, method: str, rank: int | None, inputs_compressed: bool) -> Adapter:
        """Return what was merged so; without a limit, nothing is compressed."""
        wanted = method, rank, inputs_compressed and rank is not None
        return next(a for a in self.merged if (a.method, a.rank, a.inputs_compressed) == wanted)

    def normalized(self, adapter: Adapter) -> float:
        """Return the mean over tasks of the accuracy over that of the task's own adapter.

        It is not a number if one of these adapters has learned nothing.
        """
        return fmean(
            adapter.accuracy[task] / own if own else math.nan for task, own in self.alone.items()
        )


def print_results(results: Results) -> None:
    """Print accuracies of both ways of compression, and what the method's own way costs."""
    methods = list(dict.fromkeys(each.method for each in results.merged))
    ranks = sorted({each.rank for each in results.merged if each.rank})
    rows = []
    for method in methods:
        own = find_spectral_method(method).compresses_inputs
        for inputs in (False, True):
            what = ("inputs" if inputs else "merged update") + ", the default" * (inputs is own)
            means = [results.normalized(results.find(method, r, inputs)) for r in (*ranks, None)]
            rows.append([method, what, *(f"{100 * mean:.1f}" for mean in means)])
    columns = (*(f"rank {rank}" for rank in ranks), "no limit")
    sides = f"{results.count} {results.side} examples of each task"
    print_table(
        f"Normalized accuracy in %, mean over tasks, {sides}",
        ("method", "what is compressed", *columns),
        rows,
        words=("method", "what is compressed"),
    )
    rows = []
    for method in methods:
        own = find_spectral_method(method).compresses_inputs
        for rank in (None, *reversed(ranks)):
            adapter = results.find(method, rank, own)
            exact = [f"{100 * adapter.exact[task]:.0f}" for task in results.tasks]
            lost = [_share(adapter.update_lost), _share(adapter.inputs_lost) if own else ""]
            rows.append([method, str(rank or "none"), *lost, *exact])
    titles = [TASKS[task].title for task in results.tasks]
    print_table(
        f"Exact answers in %, {sides}",
        ("method", "--rank", "update lost", "inputs lost", *titles),
        rows,
        words=("method",),
    )


def _share(lost: tuple[float, float]) -> str:
    """Return mean and maximum in percent, with two digits."""
    mean, largest = lost
    if largest < 1e-4:
        return "0%"
    return f"{100 * mean:.2g}%, at most {100 * largest:.2g}%"
