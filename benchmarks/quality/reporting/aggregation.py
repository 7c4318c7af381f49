"""Means and spreads over merges, and what is missing of a whole run."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from scipy import stats

from benchmarks.quality.reporting.outcomes import MergeOutcome, Outcomes, Planned, Setting
from benchmarks.quality.training.settings import Kind

K = TypeVar("K", bound=Hashable)

CLUSTERS = 4
"""Fewest tasks that a confidence interval is given for."""


@dataclass(frozen=True)
class Summary:
    """Several values in short.

    Attributes:
        mean: of the values.
        spread: their sample standard deviation; None of a single value.
        count: how many there are.
    """

    mean: float
    spread: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarize at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def by_size(
    merges: Iterable[MergeOutcome], setting: Setting
) -> dict[tuple[Kind, str, int], Summary]:
    """Summarize the merges' mean normalized accuracy by kind, method and number of tasks."""
    return _summarized(
        ((merge.kind, merge.method, len(merge.tasks)), merge.mean(setting)) for merge in merges
    )


@dataclass(frozen=True)
class Difference:
    """How much more of the tasks' accuracy one method keeps than another, on the same merges.

    Attributes:
        mean: over the subsets of tasks.
        error: half the width of the mean's 95% confidence interval over tasks, by the standard
            error of a mean with one cluster for each task: what a task has in several subsets is
            not independent. None of fewer than `CLUSTERS` tasks. That a repeated training gives
            another difference, which the tasks of a merge share, is not in it.
        better: on how many subsets the difference is positive, rounding aside.
        count: how many subsets there are.
    """

    mean: float
    error: float | None
    better: int
    count: int

    @classmethod
    def of(cls, subsets: Sequence[Mapping[str, float]]) -> Difference:
        """Summarize the differences on at least one subset, each by task."""
        means = [fmean(by_its_task.values()) for by_its_task in subsets]
        mean = fmean(means)
        residuals: dict[str, float] = defaultdict(float)
        for by_its_task in subsets:
            for task, difference in by_its_task.items():
                residuals[task] += (difference - mean) / len(by_its_task) / len(subsets)
        error, tasks = None, len(residuals)
        if tasks >= CLUSTERS:
            variance = sum(r**2 for r in residuals.values()) * tasks / (tasks - 1)
            error = float(stats.t.ppf(0.975, tasks - 1)) * math.sqrt(variance)
        return cls(mean, error, sum(value > 1e-9 for value in means), len(means))


def against(
    merges: Iterable[MergeOutcome], setting: Setting, other: str
) -> dict[tuple[Kind, str, int], list[dict[str, float]]]:
    """Return the differences of methods to one of them, each on the same tasks.

    The accuracy of the tasks themselves differs far more than that of the methods, and goes out.

    Returns:
        By kind, method and number of tasks, for each subset the differences of normalized
        accuracy by task; of methods with several seeds, of the mean over these.
    """
    found: dict[tuple[Kind, str, tuple[str, ...]], list[Mapping[str, float]]] = defaultdict(list)
    for merge in merges:
        found[merge.kind, merge.method, merge.tasks].append(merge.normalized[setting])
    differences: dict[tuple[Kind, str, int], list[dict[str, float]]] = defaultdict(list)
    for (kind, method, tasks), own in found.items():
        if method != other and (kind, other, tasks) in found:
            others = found[kind, other, tasks]
            by_its_task = {t: fmean(s[t] for s in own) - fmean(s[t] for s in others) for t in tasks}
            differences[kind, method, len(tasks)].append(by_its_task)
    return differences


def by_task(
    merges: Iterable[MergeOutcome], setting: Setting
) -> dict[tuple[Kind, str, str], Summary]:
    """Summarize each task's normalized accuracy by kind, method and task."""
    return _summarized(
        ((merge.kind, merge.method, task), share)
        for merge in merges
        for task, share in merge.normalized[setting].items()
    )


def base_by_task(outcomes: Outcomes) -> dict[tuple[Kind, str], float]:
    """Return the base's accuracy over that of a fine-tune that knows anything, by kind and task."""
    return {
        (tune.kind, tune.task): tune.base / tune.accuracy
        for tune in outcomes.fine_tunes
        if tune.accuracy
    }


def of_all_tasks(outcomes: Outcomes) -> list[MergeOutcome]:
    """Return the merges of all planned tasks."""
    whole = len(outcomes.planned.tasks)
    return [merge for merge in outcomes.merges if len(merge.tasks) == whole]


def missing_fine_tunes(outcomes: Outcomes) -> list[str]:
    """Return a line for each kind of which fine-tunes are missing."""
    planned = outcomes.planned
    trained = {(tune.kind, tune.task) for tune in outcomes.fine_tunes}
    lines = []
    for kind in planned.kinds:
        untrained = [task for task in planned.tasks if (kind, task) not in trained]
        if untrained:
            count = f"{len(untrained)} of {len(planned.tasks)}"
            lines.append(f"missing: {count} {kind} fine-tunes ({', '.join(untrained)})")
    return lines


def missing_merges(planned: Planned, merges: Iterable[MergeOutcome]) -> list[str]:
    """Return a line for each kind of which planned merges are missing."""
    made = {outcome.merge for outcome in merges}
    lines = []
    for kind in planned.kinds:
        wanted = [merge for merge in planned.merges() if merge.kind == kind]
        unmade = Counter(merge.method for merge in wanted if merge not in made)
        if unmade:
            methods = ", ".join(f"{method} {count}" for method, count in unmade.items())
            count = f"{sum(unmade.values())} of {len(wanted)}"
            lines.append(f"missing: {count} {kind} merges ({methods})")
    return lines


def _summarized(values: Iterable[tuple[K, float]]) -> dict[K, Summary]:
    grouped: dict[K, list[float]] = defaultdict(list)
    for key, value in values:
        grouped[key].append(value)
    return {key: Summary.of(group) for key, group in grouped.items()}
