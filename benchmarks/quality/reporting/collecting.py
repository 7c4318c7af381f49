"""Results from the cache: the records of the trainings and of the merges."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from benchmarks.quality.checkpoints import RECORD, Checkpoints, read_record
from benchmarks.quality.reporting.outcomes import FineTune, MergeOutcome, Outcomes, Planned
from benchmarks.quality.scoring import TaskScore

DIGITS = 4
"""Decimals of recorded shares; more would be finer than one of 100 test examples."""


def collect(checkpoints: Checkpoints, planned: Planned) -> Outcomes:
    """Read the records of all fine-tunes, and of all merges by the planned methods.

    Raises:
        click.ClickException: there is not one.
    """
    trainings = [
        read_record(checkpoints.path(kind, task))
        for kind, task in planned.fine_tunes()
        if (checkpoints.path(kind, task) / RECORD).exists()
    ]
    merges = list(_merge_records(checkpoints, planned))
    if not trainings and not merges:
        raise click.ClickException(
            f"there are no results in {checkpoints.folder}; make them with "
            "`python -m benchmarks.quality train` and `run`, or give --from"
        )
    return Outcomes(
        planned=planned,
        measured_on=_measured_on([*trainings, *merges]),
        fine_tunes=tuple(map(_fine_tune, trainings)),
        merges=_in_order(merges, planned),
    )


def collect_planned_merges(
    checkpoints: Checkpoints, planned: Planned
) -> tuple[tuple[MergeOutcome, ...], tuple[dict[str, Any], ...]]:
    """Read the records of the planned merges alone, and what they were measured on."""
    wanted = set(planned.merges())
    records = [r for r in _merge_records(checkpoints, planned) if _merge(r).merge in wanted]
    return _in_order(records, planned), _measured_on(records)


def _merge_records(checkpoints: Checkpoints, planned: Planned) -> Iterator[dict[str, Any]]:
    for kind in planned.kinds:
        for method in planned.methods:
            for path in (checkpoints.results(kind) / method).glob("*.json"):
                yield json.loads(path.read_text())


def _fine_tune(record: dict[str, Any]) -> FineTune:
    return FineTune(
        kind=record["settings"]["kind"],
        task=record["settings"]["task"],
        base=round(TaskScore(**record["before"]["test"]).accuracy, DIGITS),
        accuracy=round(TaskScore(**record["after"]["test"]).accuracy, DIGITS),
        loss=round(list(record["loss"].values())[-1], DIGITS),
        seconds=round(record["seconds"]["training"], 1),
    )


def _merge(record: dict[str, Any]) -> MergeOutcome:
    return MergeOutcome(
        kind=record["kind"],
        method=record["method"],
        tasks=tuple(record["tasks"]),
        seed=record["seed"],
        scales=record["scales"],
        normalized={
            setting: {task: round(share, DIGITS) for task, share in by_task.items()}
            for setting, by_task in record["normalized"].items()
        },
        validation={
            float(scale): round(accuracy, DIGITS)
            for scale, accuracy in record["validation"].items()
        },
        seconds=round(record["merge_seconds"], 1),
    )


def _in_order(records: Sequence[dict[str, Any]], planned: Planned) -> tuple[MergeOutcome, ...]:
    def place(merge: MergeOutcome) -> tuple[Any, ...]:
        kind, method = planned.kinds.index(merge.kind), planned.methods.index(merge.method)
        return kind, method, len(merge.tasks), merge.tasks, merge.seed

    return tuple(sorted(map(_merge, records), key=place))


def _measured_on(records: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    different: list[dict[str, Any]] = []
    for record in records:
        setup = {name: record[name] for name in ("machine", "versions")}
        if setup not in different:
            different.append(setup)
    return tuple(different)
