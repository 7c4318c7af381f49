"""What the documents' tables say of methods and parameters, and what the methods' specs say."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
from mergekit.merge_methods import registered_methods
from support.documents import prose, table, tables

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


def bounds(rounded: str) -> tuple[float, float]:
    """The least and the largest value that is rounded so."""
    half = 0.5 / 10 ** len(rounded.partition(".")[2])
    return float(rounded) - half, float(rounded) + half


@pytest.mark.parametrize("page", ["docs/performance.md", "docs/lora.md"])
def test_ratios_are_those_of_the_figures_beside_them(page: str):
    pairs = (("seconds", "time / ties"), ("peak MiB", "peak / ties"), ("wall s", "times ties"))
    measured = [
        (each, each.header.index(figure), each.header.index(ratio))
        for each in tables((ROOT / page).read_text(encoding="utf-8"))
        for figure, ratio in pairs
        if {figure, ratio} <= {*each.header}
    ]
    assert measured
    for each, figure, ratio in measured:
        for row in each.rows:
            if float(row[ratio]) == 1 and {"ties", "ties, copies to be made"} & {*row}:
                ties = row[figure]
            (least, most), (low, high) = bounds(row[figure]), bounds(ties)
            below, above = bounds(row[ratio])
            assert below <= most / low, (each.heading, row)
            assert above >= least / high, (each.heading, row)


def test_pages_repeat_the_measured_speeds():
    """Figures from the tables of docs/performance.md in sentences and tables of other pages."""
    speeds = partial(table, "docs/performance.md")

    def span(values: Iterable[str], digits: int = 1) -> str:
        least, *_, most = sorted(map(float, values))
        return f"{least:.{digits}f} to {most:.{digits}f}"

    workers = [row[3] for row in speeds("Several workers").rows if row[0].startswith("full, drm")]
    in_float32 = (speeds("One weight, full fine-tunes", number).rows for number in (2, 3))
    time = [(method, ratio) for rows in in_float32 for _, method, _, ratio, *_ in rows[-4:]]
    of_drm = span(ratio for method, ratio in time if method == "drm")
    least, most = sorted(float(each) for method, each in time if method in ("iso", "actmat"))[::2]
    fewer = {row[0]: row[4] for row in speeds("Fewer directions").rows}
    on_gpu = [row[1].split(" (")[0] for row in speeds("On a GPU").rows if row[0] != "ties"]
    seconds = span((each for each in on_gpu if each), 2)
    inputs = {row[0]: row[1:] for row in speeds("How cost grows").rows}["inputs T"]
    expected = {
        "full-fine-tunes.md": [
            f"{span(workers, 2)} of it for `drm` on two cores",
            f"{least} to {most:.1f} times that of `ties`, for four weights of 4096×4096 in "
            f"float32; `drm` takes {of_drm} times",
            f"{float(fewer['drm, rank: 0.25']):.1f} times that of `ties` instead of "
            f"{span([fewer['drm'], fewer['knots_ties']])}, for six inputs in bfloat16",
            f"on an H100, {seconds} s for one weight of four inputs",
        ],
        "faq.md": [f"a 4096×4096 weight of four full fine-tunes takes {seconds} s"],
        "many-models.md": [
            "`drm` and `knots_ties` grow with {1}, `star` with {3} and `ties` with {0}".format(
                *inputs
            )
        ],
    }
    for page, figures in expected.items():
        text = prose(f"docs/{page}")
        assert [figure for figure in figures if figure not in text] == [], page


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
