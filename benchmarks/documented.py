"""Print the documents' tables of time and memory, from the results that were recorded.

    python -m benchmarks.documented [--write]

prints the commands that recorded `benchmarks/results/`, and the tables, or writes both into the
documents. A test compares them. `benchmarks.quality report` prints the tables of accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from benchmarks import recorded_tables as tables

ROOT = Path(__file__).parents[1]

COMMANDS = {
    "weight_full": "merge_speed run --shapes 4096x4096 --dtype float32,bfloat16 --no-plain "
    "--runs 1",
    "weight_error": "merge_speed run --shapes 2048x2048 --runs 2 --plain-runs 1 --error",
    "weight_rank": "merge_speed run --shapes 2048x5632 --inputs 6 --dtype bfloat16 --no-plain "
    "--kept all,0.25 --runs 1",
    "weight_lora": "merge_speed run --set llama-8b --kind lora --inputs 8 --dtype bfloat16 "
    "--no-plain --runs 1",
    "growth": "merge_speed growth --max-width 2048 --runs 1 --plot docs/images",
    "command_full": "end_to_end --inputs full --runs 1 --warm-ups 0",
    "command_lora": "end_to_end --inputs lora --runs 1 --warm-ups 0",
    "workers_ties": "scaling --method ties --workers 2",
    "workers_drm": "scaling --workers 2",
    "workers_rank": "scaling --workers 2 --kept 0.25",
    "workers_lora": "scaling --inputs lora --workers 1,2",
    "estimates": "check_estimates",
    "memory": "memory",
    "tuning_lora": "tuning_cost --kind lora --runs 1",
    "tuning_full": "tuning_cost --kind full --tasks numbers,plurals --runs 1",
    "demo": "demo",
}
"""The file of results, and the module with its options, without `--json`."""


def commands() -> str:
    """Return the commands, a line each."""
    return "\n".join(
        f"python -m benchmarks.{command} --json benchmarks/results/{name}.json"
        for name, command in COMMANDS.items()
    )


TABLES: dict[tuple[str, str, int], Callable[[], str]] = {
    ("README.md", "Time and memory", 0): tables.ratios,
    ("docs/performance.md", "Benchmarks: speed", 0): tables.ratios,
    ("docs/performance.md", "How it was measured", 0): commands,
    ("docs/performance.md", "One weight, full fine-tunes", 0): tables.full_weights,
    ("docs/performance.md", "Against the definitions", 0): tables.errors,
    ("docs/performance.md", "Fewer directions", 0): tables.fewer_directions,
    ("docs/performance.md", "One weight, LoRA", 0): tables.adapters,
    ("docs/performance.md", "How cost grows", 0): tables.growth,
    ("docs/performance.md", "`mergekit-yaml` from start to finish", 0): partial(
        tables.whole_commands, "command_full"
    ),
    ("docs/performance.md", "Several workers", 0): tables.workers,
    ("docs/lora.md", "How adapters are merged", 0): partial(tables.whole_commands, "command_lora"),
    ("docs/check.md", "How good the estimates are", 0): tables.estimates,
    ("docs/memory.md", "Common sizes", 0): tables.memory_of_large_models,
    ("docs/memory.md", "Common sizes", 1): tables.time_of_large_models,
    ("docs/70b.md", "70B models", 0): tables.four_of_70b,
    ("docs/demo.md", "The demo", 0): tables.demo,
    ("docs/tune.md", "What it costs", 0): partial(tables.tuning, "tuning_lora"),
    ("docs/tune.md", "What it costs", 1): partial(tables.tuning, "tuning_full"),
}
"""By page, heading, and the number of the table or block of commands below it."""

_TABLE = re.compile(r"^(\|[^\n]*(?:\n\|[^\n]*)*)", re.MULTILINE)
_COMMANDS = re.compile(r"^```sh\n(.*?)\n```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ ", re.MULTILINE)


def filled(page: str, text: str) -> str:
    """Return a page's text with its tables as they are recorded.

    Args:
        page: by its path from the root.
        text: of the page.

    Raises:
        ValueError: the page does not have one of its headings, or not so many tables below it.
    """
    for (own, heading, number), table in TABLES.items():
        if own == page:
            pattern = _COMMANDS if table is commands else _TABLE
            start, end = _place(text, heading, number, pattern)
            text = text[:start] + table() + text[end:]
    return text


def _place(text: str, heading: str, number: int, pattern: re.Pattern[str]) -> tuple[int, int]:
    """Return where a table begins and ends, by its number below a heading."""
    section = re.search(rf"^#+ {re.escape(heading)}\n", text, re.MULTILINE)
    if section is None:
        raise ValueError(f"no heading {heading}")
    following = _HEADING.search(text, section.end())
    end = following.start() if following else len(text)
    found = [match.span(1) for match in pattern.finditer(text, section.end(), end)]
    if number >= len(found):
        raise ValueError(f"no table {number} below the heading {heading}")
    return found[number]


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Write them into the documents.")
def main(write: bool) -> None:
    """Print or write the tables."""
    if not write:
        for (page, heading, _), table in TABLES.items():
            click.echo(f"{page}, {heading}\n\n{table()}\n")
        return
    for page in dict.fromkeys(page for page, _, _ in TABLES):
        path = ROOT / page
        path.write_text(filled(page, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
