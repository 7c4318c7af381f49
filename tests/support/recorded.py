"""The recorded results of benchmarks/quality, as its commands print them and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from click.testing import CliRunner
from support.documents import ROOT, tables

from benchmarks.quality.__main__ import main
from benchmarks.quality.analysing.analyses import Analyses
from benchmarks.quality.reporting.aggregation import Difference, against, by_size
from benchmarks.quality.reporting.outcomes import MergeOutcome, Outcomes, read_lines
from benchmarks.quality.training.settings import KINDS

RESULTS = ROOT / "benchmarks/quality/results"
ADAPTERS, FULL = KINDS
AT_ONE, TUNED = "published", "tuned"


def path(name: str) -> Path:
    """The file of results of this name."""
    return RESULTS / f"{name}.json"


@cache
def printed(command: str, name: str) -> dict[str, list[list[str]]]:
    """Rows of the tables that a command prints of a file, by title, without empty ones."""
    result = CliRunner().invoke(main, [command, "--from", str(path(name))], env={"COLUMNS": None})
    assert result.exit_code == 0, result.output
    return {
        each.title: [row for row in each.rows if {*row[1:]} != {"–"}]
        for each in tables(result.output)
    }


@cache
def analyses() -> Analyses:
    """What `analyse` recorded."""
    return read_lines(path("analyses"), Analyses)


@cache
def merges(name: str) -> tuple[MergeOutcome, ...]:
    """The merges in a file."""
    return analyses().merges if name == "analyses" else read_lines(path(name), Outcomes).merges


def merged(name: str, kind: str, method: str, inputs: int) -> list[MergeOutcome]:
    """The merges of so many inputs by a method."""
    wanted = kind, method, inputs
    return [each for each in merges(name) if (each.kind, each.method, len(each.tasks)) == wanted]


def kept(name: str, kind: str, inputs: int, setting: str = AT_ONE) -> dict[str, float]:
    """Mean normalized accuracy of merges of so many inputs, in percent, by method."""
    return {
        method: 100 * summary.mean
        for (own, method, size), summary in by_size(merges(name), setting).items()
        if (own, size) == (kind, inputs)
    }


def above_ties(
    name: str, kind: str, setting: str = AT_ONE, inputs: Sequence[int] = (2, 5, 10)
) -> dict[str, Difference]:
    """Points that methods keep more than `ties`, over all subsets of these numbers of inputs."""
    found: dict[str, list[dict[str, float]]] = {}
    for (own, method, size), subsets in against(merges(name), setting, "ties").items():
        if own == kind and size in inputs:
            points = [{task: 100 * each for task, each in one.items()} for one in subsets]
            found.setdefault(method, []).extend(points)
    return {method: Difference.of(subsets) for method, subsets in found.items()}
