"""The tables of time and memory, and sentences about them, are those of the recorded results."""

from __future__ import annotations

import pytest
from support.documents import ROOT, tables

from benchmarks import documented
from benchmarks.documented import TABLES, filled
from benchmarks.recorded import RESULTS
from benchmarks.recorded_tables import estimates, ratio

PERFORMANCE = "docs/performance.md"
UNRECORDED = {("On a GPU", 0)}
"""Tables of docs/performance.md whose measurements are not in files."""


@pytest.mark.parametrize("page", dict.fromkeys(page for page, _, _ in TABLES))
def test_tables_are_those_of_the_recorded_results(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert filled(page, text) == text


def test_each_table_is_recorded():
    headings = [each.heading for each in tables((ROOT / PERFORMANCE).read_text(encoding="utf-8"))]
    found = {(each, headings[:place].count(each)) for place, each in enumerate(headings)}
    recorded = {
        (heading, number)
        for (page, heading, number), make in TABLES.items()
        if page == PERFORMANCE and make is not documented.commands
    }
    assert found == recorded | UNRECORDED


def test_each_file_of_results_is_of_a_command():
    files = {path.stem for path in RESULTS.glob("*.json")}
    # The updates of models were noise when this was recorded.
    assert files == {*documented.COMMANDS, "command_noise"}


def test_another_table_is_replaced():
    page, heading = "docs/check.md", "How good the estimates are"
    text = f"## {heading}\n\nText.\n\n| a |\n| --- |\n| 1 |\n\n## Next\n\n| b |\n| --- |\n"
    start, _, end = text.partition("| a |\n| --- |\n| 1 |")
    assert filled(page, text) == start + estimates() + end


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("## Another\n", "no heading How good the estimates are"),
        ("## How good the estimates are\n\n## Next\n\n| b |\n| --- |\n", "no table 0 below"),
    ],
)
def test_a_page_without_the_place(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        filled("docs/check.md", text)


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
    assert ratio(value) == expected
