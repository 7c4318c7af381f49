"""What the documents' tables say of methods and parameters, and what the methods' specs say."""

from __future__ import annotations

from pathlib import Path

import pytest
from mergekit.merge_methods import registered_methods

from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.description import (
    PARAMETER_COLUMNS,
    MethodDescription,
    parameter_rows,
)

ROOT = Path(__file__).parents[1]


def cells(line: str) -> tuple[str, ...]:
    """Return the cells of a line of a table."""
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


@pytest.mark.parametrize(("file", "columns"), [("README.md", 5), ("docs/parameters.md", 7)])
def test_tables_of_parameters_are_what_the_command_prints(file: str, columns: int):
    lines = (ROOT / file).read_text().splitlines()
    rows = [cells(line) for line in lines]
    start = rows.index(PARAMETER_COLUMNS[:columns])
    ours = [m for m in registered_methods() if isinstance(m, SpectralMethod)]
    expected = [row[:columns] for row in parameter_rows(map(MethodDescription.of, ours))]
    assert rows[start + 2 : start + 2 + len(expected)] == expected
    assert not lines[start + 2 + len(expected)].startswith("|")


def test_the_summary_of_the_speed_agrees_with_its_tables():
    """Time and memory of single weights in the first table are in one row of a later table."""
    text = (ROOT / "docs/performance.md").read_text()
    first, _, later = text.partition("## How it was measured")
    names, _, *summary = (cells(line) for line in first.splitlines() if line.startswith("|"))
    measured = [cells(line) for line in later.splitlines() if line.startswith("|")]
    pairs = [
        (name, *pair.split(", "))
        for label, *values in summary
        if "one weight" in label
        for name, pair in zip(names[1:], values, strict=True)
        if pair != "–"
    ]
    assert len(pairs) == 14
    pairs.remove(("`actmat`", "0.015", "0.084"))  # whose memory is not in a table
    assert [pair for pair in pairs if not any({*pair} <= {*row} for row in measured)] == []
