"""Read the recorded results of time and memory."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"


class Cost(NamedTuple):
    """What a merge took."""

    seconds: float
    peak_bytes: float


def read(name: str) -> dict[str, Any]:
    """Return what a file of results has.

    Args:
        name: of the file, without its suffix.
    """
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def cases_of(name: str) -> list[dict[str, Any]]:
    """Return the cases in a file of `merge_speed` or `check_estimates`."""
    found: list[dict[str, Any]] = read(name)["cases"]
    return found


def runs_of(name: str) -> dict[str, dict[str, float]]:
    """Return the medians of each command's runs, by its label."""
    return {label: _medians(runs) for label, runs in read(name)["runs"].items()}


def of_weight(name: str, dtype: str) -> dict[str, Cost]:
    """Return what each method took for a weight of 4096x4096, in a file of `merge_speed`."""
    return {
        case["method"]: Cost(case["seconds"], case["peak_bytes"])
        for case in cases_of(name)
        if (case["shape"], case["dtype"]) == ([4096, 4096], dtype)
    }


def of_command(name: str) -> dict[str, Cost]:
    """Return what each method took as a whole command, in a file of `end_to_end`."""
    return {
        label.removesuffix(", first merge"): Cost(one["seconds"], one["peak_bytes"])
        for label, one in runs_of(name).items()
    }


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {what: statistics.median(run[what] for run in runs) for what in runs[0]}
