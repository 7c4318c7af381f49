"""Print tables and answers: with rules on a terminal, as Markdown into a pipe.

A pipe has no width, so Markdown has lines of any length. With the environment variable ``COLUMNS``
a pipe has one: what does not fit is printed in blocks, as on a terminal of that width.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

LEAST = " " * 16
"""Words are not wrapped to columns that are narrower than this."""


def print_answers(headline: str, answers: Iterable[tuple[str, str]]) -> None:
    """Print a sentence and the answers to questions below it: aligned on a terminal.

    Args:
        headline: the sentence.
        answers: a question of a word or two and its answer, in Markdown, of which a terminal leaves
            out the backticks.
    """
    console = Console()
    if not console.is_terminal and _columns() is None:
        click.echo(f"{headline}\n")
        for question, answer in answers:
            click.echo(f"- {question}: {answer}")
        click.echo()
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for question, answer in answers:
        grid.add_row(question, Text(answer.replace("`", "")))
    console.print(Text(headline.replace("`", ""), style="bold"))
    console.print()
    console.print(grid)
    console.print()


def print_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Collection[str],
    notes: Sequence[str] = (),
) -> None:
    """Print a table: ruled on a terminal, Markdown in a pipe.

    Words and numbers are never broken. A table that is too wide even with its words wrapped is
    printed as one block for each row.

    Args:
        title: the table's heading.
        header: the columns' names.
        rows: as many cells each, in Markdown, of which a terminal leaves out the backticks.
        words: which columns hold words rather than numbers. The first column holds names, which
            are broken at spaces only.
        notes: lines to print after it.
    """
    console = Console()
    rows = list(rows)
    whole = _table_width([max(map(cell_len, cells)) for cells in zip(header, *rows, strict=True)])
    is_markdown = not console.is_terminal and whole <= (_columns() or whole)
    if is_markdown:
        # Rich would cut lines to 80.
        _print_ruled(Console(width=whole), title, header, rows, words, box.MARKDOWN)
    else:
        title = title.replace("`", "")
        rows = [[cell.replace("`", "") for cell in row] for row in rows]
        if _table_width(_widths(header, rows, words)) <= console.width:
            _print_ruled(console, title, header, rows, words, box.HEAVY_HEAD)
        else:
            _print_blocks(console, title, header, rows)
    has_width = console.is_terminal or _columns() is not None
    for line in notes:
        console.print(line, highlight=False, soft_wrap=not has_width, markup=False)
    if notes:  # else Markdown would run them into what follows
        console.print()


def _columns() -> int | None:
    """Return the width that the environment gives to a pipe, if it does."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else None


def _print_ruled(
    console: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Collection[str],
    style: box.Box,
) -> None:
    piped = style is box.MARKDOWN
    table = Table(title=title, box=style, title_justify="left")
    widths = _widths(header, rows, words)
    whole = [max(cell_len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    tight = _table_width(whole) > console.width
    if not set(words) & set(header[1:]):  # the names get all the room that numbers leave
        room = console.width - _table_width(widths)
        widths[0] = min(whole[0], widths[0] + max(0, room))
    for number, name in enumerate(header):
        fixed = tight and (number == 0 or name not in words)
        justify: Literal["left", "right"] = "left" if name in words else "right"
        # Headings may be broken between their words where cells may not be.
        width = widths[number] if fixed else None
        table.add_column(name, justify=justify, no_wrap=piped, width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _print_blocks(
    console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print each row as a block: its name, and below it the other cells with their columns."""
    console.print(title, style="italic", highlight=False, markup=False)
    for row in rows:
        console.print()
        console.print(row[0], style="bold", highlight=False, markup=False, soft_wrap=True)
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, cell in zip(header[1:], row[1:], strict=True):
            if cell:
                grid.add_row(f"  {name}", Text(cell))
        console.print(grid)
    console.print()


def _table_width(widths: Sequence[int]) -> int:
    """Return the width of a table with rules, given those of its columns."""
    return sum(widths) + 3 * len(widths) + 1


def _widths(
    header: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str]
) -> list[int]:
    """Return the least width of each column: of a cell, or of a word in columns of words."""
    widths = []
    for number, name in enumerate(header):
        cells = [row[number] for row in rows]
        if number == 0:
            cells = [part for cell in cells for part in _parts_of_name(cell)]
        elif name in words:
            cells = [max(LEAST, word, key=cell_len) for cell in cells for word in cell.split()]
        parts = [*cells, *name.split()]
        widths.append(max(map(cell_len, parts), default=0))
    return widths


def _parts_of_name(name: str) -> list[str]:
    """Return a name, or, if it is long, the words that it may be broken into."""
    if cell_len(name) <= len(LEAST):
        return [name]
    return [max(LEAST, word, key=cell_len) for word in name.split()]
