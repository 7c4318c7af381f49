"""What the documents' tables say of methods and parameters, and what the methods' specs say."""

from __future__ import annotations

from pathlib import Path

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


def test_table_of_parameters_is_what_the_command_prints():
    lines = (ROOT / "docs/parameters.md").read_text().splitlines()
    rows = [cells(line) for line in lines]
    start = rows.index(PARAMETER_COLUMNS)
    ours = [m for m in registered_methods() if isinstance(m, SpectralMethod)]
    expected = parameter_rows(map(MethodDescription.of, ours))
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


def test_pages_have_the_estimates_of_the_table():
    """Figures from the table of docs/memory.md in sentences and tables of other pages."""
    lines = (ROOT / "docs/memory.md").read_text().splitlines()
    rows = {row[:3]: row[3:] for row in map(cells, lines) if row[0] in ("7B", "13B", "70B")}
    drm, _, core_time, ties, _, _ = (
        {key: row[column] for key, row in rows.items()} for column in range(6)
    )

    def span(values: dict[tuple[str, ...], str], size: str, kind: str) -> str:
        least, most = (values[size, kind, count] for count in "28")
        return least if least == most else f"{least} to {most}"

    hours = [core_time["70B", "full", count].removesuffix(" h") for count in "248"]
    expected = {
        "faq.md": [
            f"{drm['7B', 'lora', '4']} GB for adapters and {drm['7B', 'full', '4']} GB for full",
            f"{ties['7B', 'lora', '4']} GB with mergekit's",
            f"{span(drm, '70B', 'lora')} GB for adapters and {span(drm, '70B', 'full')} GB for",
        ],
        "70b.md": [
            f"| {span(drm, '70B', 'lora')} GB | {span(drm, '70B', 'full')} GB for two to eight",
            f"| {span(ties, '70B', 'full')} GB | the same |",
            "| {} h for two inputs, {} h for four, {} h for eight |".format(*hours),
        ],
        "many-models.md": [
            f"{span(drm, '7B', 'lora')} GB a worker for two to eight adapters, "
            f"{span(drm, '7B', 'full')} GB for full fine-tunes; `ties`: {span(ties, '7B', 'full')}"
        ],
        "full-fine-tunes.md": [
            f"{core_time['7B', 'full', '4'].removesuffix(' h')} hours of one core, and for four "
            f"adapters {core_time['7B', 'lora', '4'].removesuffix(' min')} minutes"
        ],
        "memory.md": [
            f"of a 70B model in {drm['70B', 'lora', '4']} GB, and four full fine-tunes in "
            f"{drm['70B', 'full', '4']} GB"
        ],
    }
    for page, figures in expected.items():
        text = " ".join((ROOT / "docs" / page).read_text().split())
        assert [figure for figure in figures if figure not in text] == [], page
