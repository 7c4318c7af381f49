"""The README's figures are those that were recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import readme

ROOT = Path(__file__).parents[2]


def test_table_of_time_and_memory_is_that_of_the_recorded_results():
    assert readme.speed_table() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12.34, "12"),
        (1.04, "1.0"),
        (0.996, "1.0"),
        (0.504, "0.50"),
        (0.1, "0.10"),
        (0.0131, "1/76"),
    ],
)
def test_ratios_have_two_digits(value: float, expected: str):
    assert readme.ratio(value) == expected
