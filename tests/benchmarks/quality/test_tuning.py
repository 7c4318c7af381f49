"""The tables of `benchmarks.quality tune`, from chosen numbers."""

from __future__ import annotations

import pytest

from benchmarks.quality.tasks.task import KeyedExample, Task
from benchmarks.quality.tuning.measure import question
from benchmarks.quality.tuning.tables import print_results

MERGE = {
    "kind": "full",
    "method": "drm",
    "tasks": ["sums", "plurals"],
    "grid": {
        "1.0": {"sums": 0.4, "plurals": 0.6},
        "1.5": {"sums": 0.6, "plurals": 0.8},
        "2.25": {"sums": 0.5, "plurals": 0.4},
    },
    "draws": [
        {
            "count": 20,
            "scale": scale,
            "accuracy": accuracy,
            "signals": {"likelihood": 1.5, "accuracy": 2.25},
        }
        for scale, accuracy in ((1.0, 0.5), (1.4, 0.7))
    ],
}


def test_what_was_found(capsys: pytest.CaptureFixture[str]):
    print_results([MERGE])
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| drm")
    ]
    assert rows == [
        ["drm", "50.0", "70.0 (λ = 1.5)", "60.0 ± 10.0 (50%)", "1 to 1.4"],
        ["drm", "70.0", "45.0"],
    ]


def test_answers_end_as_the_suite_has_them():
    example = KeyedExample("The plural of cat is", " cats", "cat")
    free = Task("plurals", "plurals", lambda: iter([example]))
    assert question(free, example).answer == " cats."
    choice = Task("kind", "kind", lambda: iter([example]), choices=(" cats", " dogs"))
    assert question(choice, example).answer == " cats"
    assert question(choice, example).choices == (" cats", " dogs")
