"""The tables of accuracies in the documents are those of the recorded results.

Each table of docs/quality.md is what a command prints of a file of benchmarks/quality/results
(`PRINTED`), or each of its columns is computed from such files (`COMPUTED`), or its figures were
not recorded (`UNRECORDED`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from statistics import fmean

import pytest
from support.documents import ROOT, table, tables
from support.recorded import ADAPTERS, AT_ONE, FULL, TUNED, merged, merges, printed

from benchmarks.quality.merging.methods import METHODS
from benchmarks.quality.reporting.aggregation import by_size
from benchmarks.quality.reporting.outcomes import SETTINGS
from benchmarks.quality.reporting.tables import AT, TITLES, cell
from benchmarks.quality.tasks import TASKS

QUALITY, TUNE, LORA = "docs/quality.md", "docs/tune.md", "docs/lora.md"
OF_TESTS = "answers in %, 100 test examples of each task"
OF_TASKS = "accuracy in %, mean over tasks, 100 test examples of each task"
NEWER = ("iso", "tsvm", "actmat")

Column = Callable[[str], str]
"""From a method to a cell."""

PRINTED: dict[tuple[str, str, int], tuple[str, str, str]] = {
    **{
        (QUALITY, "How many inputs", number): ("report", "merges", f"{what} {kind} {setting}")
        for number, (what, kind, setting) in enumerate(
            product(("Merges of", "The same less ties,"), TITLES.values(), AT.values())
        )
    },
    **{
        (QUALITY, "Task by task", number): (
            "report",
            "merges",
            f"Merges of all 10 {kind} {AT[AT_ONE]}: normalized accuracy in %, by task, "
            "mean over seeds",
        )
        for number, kind in enumerate(TITLES.values())
    },
    **{
        (QUALITY, "Ablations", number): (
            "analyse",
            "analyses",
            f"Variants of the methods on {kind}",
        )
        for number, kind in enumerate(TITLES.values())
    },
    (QUALITY, "Limits of these measurements", 0): (
        "report",
        "merges",
        "Fine-tunes: accuracy on their own task's test examples, in %",
    ),
    (LORA, "A limit on the rank", 0): ("ranks", "adapter-ranks", f"Normalized {OF_TASKS}"),
    (LORA, "What a smaller rank costs", 0): ("ranks", "demo-adapter-ranks", f"Exact {OF_TESTS}"),
    **{
        (TUNE, "How much of the gain it finds", number): (
            "tune",
            "tuning",
            f"5 {kind}: accuracy on test examples, normalized, in percent",
        )
        for number, kind in enumerate(TITLES.values())
    },
}
"""Command, file and title of the printed table, by page, heading and number below it.

The document may leave out the last columns.
"""


def mean(name: str, kind: str, inputs: int, setting: str) -> Column:
    """Mean ± standard deviation over the merges of so many inputs."""
    return lambda method: cell(by_size(merges(name), setting).get((kind, method, inputs)))


def both(name: str, kind: str, inputs: int, subsets: int = 1) -> Column:
    """Means at λ = 1 / with tuned λ, on the subsets that `task_arithmetic` was measured on.

    The number of subsets is in brackets if it is smaller than the given one.
    """

    def column(method: str) -> str:
        own = merged(name, kind, method, inputs)
        shared = {each.tasks for each in merged(name, kind, "task_arithmetic", inputs)}
        own = [each for each in own if not shared or each.tasks in shared]
        if not own:
            return "–"
        means = (f"{100 * fmean(each.mean(at) for each in own):.1f}" for at in SETTINGS)
        return " / ".join(means) + f" ({len(own)})" * (len(own) < subsets)

    return column


def of_tasks(name: str, kind: str, *tasks: str) -> Column:
    """Accuracy on each of these tasks at λ = 1, of the merge of the most inputs."""

    def column(method: str) -> str:
        own = [each for each in merges(name) if (each.kind, each.method) == (kind, method)]
        found = max(own, key=lambda each: len(each.tasks)).normalized[AT_ONE]
        return ", ".join(f"{100 * found[task]:.0f}" for task in tasks)

    return column


def tuned(kind: str, *runs: tuple[str, int]) -> Column:
    """The λ that tuning chose, in merges by file and number of inputs."""
    return lambda method: ", ".join(f"{scale:g}" for scale in scales(kind, method, *runs))


def all_tuned(kind: str, inputs: int, *newer: tuple[str, int]) -> Column:
    """The same in ascending order: of the newer methods of these runs, else of the first run."""

    def column(method: str) -> str:
        runs = newer if method in NEWER else [("merges", inputs)]
        return ", ".join(f"{scale:g}" for scale in sorted(scales(kind, method, *runs))) or "–"

    return column


def scales(kind: str, method: str, *runs: tuple[str, int]) -> list[float]:
    """The same as numbers."""
    found = [each for name, inputs in runs for each in merged(name, kind, method, inputs)]
    return [each.scales[TUNED] for each in found]


def published(method: str) -> str:
    """The published λ."""
    return f"{METHODS[method].scale:g}"


COMPUTED: dict[tuple[str, int], dict[str, Column]] = {
    ("Which λ", 0): {
        "published": published,
        "2": all_tuned(ADAPTERS, 2, ("new-methods", 2)),
        "5": all_tuned(ADAPTERS, 5, ("new-methods", 5), ("actmat", 5), ("actmat", 6)),
        "10": all_tuned(ADAPTERS, 10, ("new-methods", 10)),
    },
    ("Which λ", 1): {
        "published": published,
        "2": all_tuned(FULL, 2, ("new-methods", 2)),
        "5": all_tuned(FULL, 5, ("actmat", 5)),
        "10": all_tuned(FULL, 10, ("actmat", 10)),
    },
    ("Ablations", 2): {
        "published λ": mean("rank", FULL, 5, AT_ONE),
        "tuned λ": mean("rank", FULL, 5, TUNED),
    },
    ("Full fine-tunes", 0): {
        "5, λ = 1": mean("actmat", FULL, 5, AT_ONE),
        "5, tuned": mean("actmat", FULL, 5, TUNED),
        "10, λ = 1": mean("actmat", FULL, 10, AT_ONE),
        "10, tuned": mean("actmat", FULL, 10, TUNED),
    },
    ("Full fine-tunes", 1): {task: of_tasks("actmat", FULL, task) for task in TASKS},
    ("Adapters", 0): {
        "5 adapters": both("actmat", ADAPTERS, 5),
        "6 adapters": both("actmat", ADAPTERS, 6),
        "tuned λ": tuned(ADAPTERS, ("actmat", 5), ("actmat", 6)),
    },
    ("An earlier run", 0): {
        "2 adapters (3)": both("new-methods", ADAPTERS, 2, subsets=3),
        "5 adapters (2)": both("new-methods", ADAPTERS, 5, subsets=2),
        "10 adapters (1)": both("new-methods", ADAPTERS, 10),
        "2 full (1)": both("new-methods", FULL, 2),
        "5 full (1)": both("new-methods", FULL, 5),
        "10 full (1)": both("new-methods", FULL, 10),
    },
    ("Another model", 0): {
        "λ = 1": mean("gemma-3-270m", ADAPTERS, 3, AT_ONE),
        "tuned": mean("gemma-3-270m", ADAPTERS, 3, TUNED),
        "numbers, plurals, sentiment at λ = 1": of_tasks(
            "gemma-3-270m", ADAPTERS, "numbers", "plurals", "sentiment"
        ),
    },
    ("Adapters with different random starts", 0): {
        "published, same start": mean("shared-starts", ADAPTERS, 5, AT_ONE),
        "published, different starts": mean("own-starts", ADAPTERS, 5, AT_ONE),
        "tuned, same start": mean("shared-starts", ADAPTERS, 5, TUNED),
        "tuned, different starts": mean("own-starts", ADAPTERS, 5, TUNED),
    },
}
"""The columns, by heading in docs/quality.md and number of the table below it."""

UNRECORDED = {
    ("The eight older methods in short", 0): "test_documented_sentences.py has its figures",
    ("An earlier run", 1): "merges of four tasks, made before results were recorded",
    ("An earlier run", 2): "settings that were tried on few validation examples",
    ("An earlier run", 3): "rules that were tried on few validation examples",
}


@pytest.mark.parametrize(("page", "heading", "number"), PRINTED)
def test_table_is_what_the_command_prints(page: str, heading: str, number: int):
    command, name, title = PRINTED[page, heading, number]
    document = table(page, heading, number)
    columns = len(document.header)
    assert document.rows == [row[:columns] for row in printed(command, name)[title]]


@pytest.mark.parametrize(("heading", "number"), COMPUTED)
def test_columns_are_those_of_the_files(heading: str, number: int):
    columns, document = COMPUTED[heading, number], table(QUALITY, heading, number)
    assert document.header[1:] == list(columns)
    for label, *cells in document.rows:
        method = re.findall(r"[\w.]+", label)[0]  # without "(λ = 0.4)" or ", density 0.2"
        assert (label, cells) == (label, [column(method) for column in columns.values()])


def test_each_table_is_one_of_these():
    headings = [each.heading for each in tables((ROOT / QUALITY).read_text(encoding="utf-8"))]
    found = {(each, headings[:place].count(each)) for place, each in enumerate(headings)}
    in_files = {(heading, number) for page, heading, number in PRINTED if page == QUALITY}
    assert found == in_files | COMPUTED.keys() | UNRECORDED.keys()
