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


@pytest.mark.parametrize(("file", "columns"), [("README.md", 5), ("docs/parameters.md", 7)])
def test_tables_of_parameters_are_what_the_command_prints(file: str, columns: int):
    lines = (ROOT / file).read_text().splitlines()
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    start = rows.index(PARAMETER_COLUMNS[:columns])
    ours = [m for m in registered_methods() if isinstance(m, SpectralMethod)]
    expected = [row[:columns] for row in parameter_rows(map(MethodDescription.of, ours))]
    assert rows[start + 2 : start + 2 + len(expected)] == expected
    assert not lines[start + 2 + len(expected)].startswith("|")
