"""Read the recorded results of time and memory."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

Figures = Mapping[str, tuple[float, float]]
"""By method, seconds and bytes."""


def read(name: str) -> dict[str, Any]:
    """Return what a file of results has.

    Args:
        name: of the file, without its suffix.
    """
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def cases_of(name: str) -> list[dict[str, Any]]:
    """Return the cases in a file of `merge_speed`."""
    found: list[dict[str, Any]] = read(name)["cases"]
    return found


def of_weight(name: str, dtype: str) -> Figures:
    """Return the figures of a weight of 4096x4096 in a file of `merge_speed`."""
    return {
        case["method"]: (case["seconds"], case["peak_bytes"])
        for case in cases_of(name)
        if (case["shape"], case["dtype"]) == ([4096, 4096], dtype)
    }


def of_command(name: str) -> Figures:
    """Return the figures of whole commands in a file of `end_to_end`."""
    runs: dict[str, list[dict[str, Any]]] = read(name)["runs"]
    found = {label: medians(each) for label, each in runs.items()}
    return {
        label.removesuffix(", first merge"): (one["seconds"], one["peak_bytes"])
        for label, one in found.items()
    }


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over runs."""
    return {what: statistics.median(run[what] for run in runs) for what in runs[0]}
