"""Print tables: with rules on a terminal, as Markdown into a pipe."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Collection[str],
    notes: Sequence[str] = (),
) -> None:
    """Print a table: ruled on a terminal, Markdown in a pipe.

    Args:
        title: the table's heading.
        header: the columns' names.
        rows: as many cells each, in Markdown, of which a terminal leaves out the backticks.
        words: which columns hold words rather than numbers.
        notes: lines to print after it.
    """
    console = Console()
    piped = not console.is_terminal
    if piped:  # it has no width, and rich would cut lines to 80
        console = Console(width=1000)
    table = Table(title=title, box=box.MARKDOWN if piped else box.HEAVY_HEAD, title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in words else "right", no_wrap=piped)
    for row in rows:
        table.add_row(*(escape(cell if piped else cell.replace("`", "")) for cell in row))
    console.print(table)
    for line in notes:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if notes:  # else Markdown would run them into what follows
        console.print()
