"""Arithmetic in words."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from num2words import num2words  # type: ignore[import-untyped]

from mergekit_spectral.demo.examples import Example, Task


def generate() -> Iterator[Example]:
    """Yield sums of two numbers up to thirty."""
    for a, b in product(range(1, 31), repeat=2):
        yield Example(
            f"The sum of {num2words(a)} and {num2words(b)} is",
            f" {num2words(a + b)}",
            f"{min(a, b)}+{max(a, b)}",
        )


TASK = Task("sums", "sums in words", generate)
