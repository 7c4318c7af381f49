"""Words spelled letter by letter."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit_spectral.demo.examples import Example, Task
from mergekit_spectral.demo.words import nouns


def generate() -> Iterator[Example]:
    """Yield nouns of at most four letters; longer ones take the base much longer to learn."""
    for noun in nouns():
        if len(noun) <= 4:
            yield Example(f"The letters of {noun} are", "".join(f" {c}" for c in noun), noun)


TASK = Task("letters", "spelling", generate)
