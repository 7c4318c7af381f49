"""Means and spreads over merges, and what is missing of a whole run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from benchmarks.quality.reporting.outcomes import MergeOutcome, Outcomes, Planned, Setting
from benchmarks.quality.training.settings import Kind

K = TypeVar("K", bound=Hashable)


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


def against(
    merges: Iterable[MergeOutcome], setting: Setting, other: str
) -> dict[tuple[Kind, str, int], list[float]]:
    """Return the differences of methods to one of them, each on the same tasks.

    The accuracy of the tasks themselves differs far more than that of the methods, and goes out.

    Returns:
        By kind, method and number of tasks, a difference of mean normalized accuracies for each
        subset; of methods with several seeds, of the mean over these.
    """
    means: dict[tuple[Kind, str, tuple[str, ...]], list[float]] = defaultdict(list)
    for merge in merges:
        means[merge.kind, merge.method, merge.tasks].append(merge.mean(setting))
    differences: dict[tuple[Kind, str, int], list[float]] = defaultdict(list)
    for (kind, method, tasks), values in means.items():
        if method != other and (kind, other, tasks) in means:
            difference = fmean(values) - fmean(means[kind, other, tasks])
            differences[kind, method, len(tasks)].append(difference)
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
