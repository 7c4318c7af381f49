"""What the documents' tables say of methods and parameters, and what the methods' specs say."""

from __future__ import annotations

from pathlib import Path

from mergekit.merge_methods import registered_methods
from support.documents import prose, table

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


def test_table_of_parameters_is_what_the_command_prints():
    lines = (ROOT / "docs/parameters.md").read_text().splitlines()
    rows = [cells(line) for line in lines]
    start = rows.index(PARAMETER_COLUMNS)
    ours = [m for m in registered_methods() if isinstance(m, SpectralMethod)]
    expected = parameter_rows(map(MethodDescription.of, ours))
    assert rows[start + 2 : start + 2 + len(expected)] == expected
    assert not lines[start + 2 + len(expected)].startswith("|")


def test_means_of_the_demo_are_those_of_its_tasks():
    rows = table("docs/demo.md", "The demo").rows
    for label, *shares in rows:
        *tasks, mean = (float(share.removesuffix("%")) for share in shares[:4])
        assert f"{sum(tasks) / 3:.0f}" == f"{mean:.0f}", label
    means = {row[0].split()[0]: int(row[4].removesuffix("%")) for row in rows}
    gain, loss = means["tuned"] - means["ties"], means["iso"] - means["tuned"]
    text = prose("docs/demo.md")
    assert f"It is {gain} points above the recipe" in text
    assert f"and {loss} points below `iso` at λ = 1" in text
