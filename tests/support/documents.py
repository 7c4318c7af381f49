"""Read the documents' tables and sentences, and the tables that commands print in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Table:
    """A table in Markdown.

    Attributes:
        heading: above it, without the `#`.
        title: the paragraph above it, in one line.
        header: its columns' names.
        rows: their cells, without backticks.
    """

    heading: str
    title: str
    header: list[str]
    rows: list[list[str]]


def tables(text: str) -> list[Table]:
    """Return the tables of a text, in order."""
    found, heading, title = [], "", ""
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("|"):
            header, _, *rows = (
                [cell.strip() for cell in line.replace("`", "").strip("|").split("|")]
                for line in map(str.strip, block.splitlines())
            )
            found.append(Table(heading, title, header, rows))
        elif block.startswith("#"):
            heading = block.lstrip("# ")
        title = " ".join(block.split())
    return found


def says(page: str, *sentences: str, text: str | None = None) -> None:
    """Fail with the sentences that a page does not have, or another text of that name."""
    text = prose(page) if text is None else text
    assert [sentence for sentence in sentences if sentence not in text] == [], page


def span(values: Iterable[float], digits: int = 0) -> str:
    """The least and the largest, or one of them if both are rounded to the same."""
    values = list(values)
    ends = (f"{min(values):.{digits}f}", f"{max(values):.{digits}f}")
    return " to ".join(dict.fromkeys(ends))


def table(page: str, heading: str, number: int = 0) -> Table:
    """Return a page's table, by its number below a heading, from 0."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [each for each in tables(text) if each.heading == heading][number]


def prose(page: str) -> str:
    """Return a page in one line, with the text of links alone and without emphasis."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "").split())
