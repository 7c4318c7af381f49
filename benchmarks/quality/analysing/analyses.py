"""The command `analyse`: the papers' analyses, on this suite's fine-tunes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.quality.analysing.matrices import MatrixAnalysis
from benchmarks.quality.reporting.outcomes import MergeOutcome, Planned


@dataclass(frozen=True)
class Analyses:
    """What came out, whether or not it is all that was planned.

    Attributes:
        planned: the merges by variants of the methods.
        measured_on: the machines and versions of those, each once.
        merges: by kind, method, number of tasks and tasks, in the plan's order.
        matrices: by kind and weight.
    """

    planned: Planned
    measured_on: tuple[dict[str, Any], ...]
    merges: tuple[MergeOutcome, ...]
    matrices: tuple[MatrixAnalysis, ...]
