"""Tasks about numbers: in Spanish, added up in words, and on the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import time
from itertools import product

from babel.dates import format_time
from num2words import num2words  # type: ignore[import-untyped]

from benchmarks.quality.tasks.task import KeyedExample, Task


def numbers() -> Iterator[KeyedExample]:
    """Yield the numbers below a thousand, in Spanish words."""
    for number in range(1, 1000):
        yield KeyedExample(
            f"The number {number} in Spanish is", f" {num2words(number, lang='es')}", str(number)
        )


def sums() -> Iterator[KeyedExample]:
    """Yield sums of two numbers up to thirty, in words."""
    for a, b in product(range(1, 31), repeat=2):
        yield KeyedExample(
            f"The sum of {num2words(a)} and {num2words(b)} is",
            f" {num2words(a + b)}",
            f"{min(a, b)}+{max(a, b)}",
        )


def clock() -> Iterator[KeyedExample]:
    """Yield every minute of the day, from a twelve-hour to a twenty-four-hour clock."""
    for minutes in range(24 * 60):
        moment = time(minutes // 60, minutes % 60)
        twelve = format_time(moment, "h:mm a", locale="en_US")
        # 3:45 in the morning and in the afternoon are on one side.
        yield KeyedExample(
            f"The time {twelve} in 24 hours is", f" {moment:%H:%M}", twelve.partition(" ")[0]
        )


TASKS = (
    Task("numbers", "Spanish numbers", numbers),
    Task("sums", "sums in words", sums),
    Task("clock", "24-hour times", clock),
)
