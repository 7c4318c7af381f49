"""The table of time and memory is that of the recorded results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import readme

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md"])
def test_pages_have_the_table_of_the_recorded_results(page: str):
    assert readme.speed_table() in (ROOT / page).read_text()


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
