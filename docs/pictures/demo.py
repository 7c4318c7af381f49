"""The demo's result: what the table in docs/demo.md says, as a chart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from docs.pictures.canvas import MARGIN, RIGHT, SMALL, Canvas, Picture
from docs.pictures.examples import ROOT

TABLE = ROOT / "docs" / "demo.md"


@dataclass(frozen=True)
class Row:
    """A model of the demo.

    Attributes:
        name: as the table has it, such as ``base``, ``adapter numbers`` or ``iso``.
        mean: the mean accuracy of the three tasks, in percent.
    """

    name: str
    mean: int

    @property
    def is_merge(self) -> bool:
        """Whether inputs were merged."""
        return self.name != "base" and not self.name.startswith("adapter ")


def read_table() -> list[Row]:
    """Read the demo's table.

    Raises:
        ValueError: the page has no such table.
    """
    lines = iter(TABLE.read_text().splitlines())
    for line in lines:
        header = _cells(line)
        if header[0] == "model" and "mean" in header:
            next(lines)
            rows: list[Row] = []
            for row in lines:
                if not row.startswith("|"):
                    return rows
                cells = _cells(row)
                name = re.sub(r"`|\(.*\)", "", cells[0]).strip()
                rows.append(Row(name, int(cells[header.index("mean")].removesuffix("%"))))
    raise ValueError(f"{TABLE} has no table of the demo, which has the columns model and mean.")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def picture() -> Picture:
    """Return the drawing."""
    rows = read_table()
    values = ", ".join(f"{row.name} {row.mean}%" for row in _in_order(rows))
    alt = f"Mean accuracy on the demo's three tasks: {values}."
    return Picture("demo", alt, 46.0 + STEP * len(rows) + SPACE, lambda c: _draw(c, rows))


LEFT, LENGTH = 96.0, RIGHT - 96 - 30
STEP, SPACE = 15.0, 7.0


def _in_order(rows: list[Row]) -> list[Row]:
    """Return the inputs as they are, then all merges, best first."""
    merges = sorted((row for row in rows if row.is_merge), key=lambda row: -row.mean)
    return [row for row in rows if not row.is_merge] + merges


def _draw(canvas: Canvas, rows: list[Row]) -> None:
    theme = canvas.theme
    canvas.title(14, "Three adapters, merged into one model")
    text = "SmolLM2-135M, mean accuracy of three short tasks in percent"
    canvas.text(MARGIN, 27, text, SMALL, theme.faded)
    y = 46.0
    previous = None
    for row in _in_order(rows):
        if previous and previous.is_merge != row.is_merge:
            y += SPACE
        previous = row
        ours = row.is_merge and row.name != "ties"
        canvas.text(LEFT - 6, y, row.name, align="right", bold=row.is_merge)
        canvas.box(LEFT, y - 5, LENGTH, 10, theme.cell)
        canvas.box(LEFT, y - 5, LENGTH * row.mean / 100, 10, theme.accent if ours else theme.faded)
        canvas.text(RIGHT, y, f"{row.mean}", align="right", bold=row.is_merge)
        y += STEP
