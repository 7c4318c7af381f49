"""Tasks, and their examples split by the hash of each example's key.

An example's side depends on its own key alone, so a newer word list can add or remove examples
but never moves one from one side to another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

TEST_EXAMPLES = 100
VALIDATION_SHARE = 0.08
VALIDATION_EXAMPLES = 60
# Greedy decoding is read up to the end of the sentence.
END_OF_ANSWER = "."


@dataclass(frozen=True)
class Example:
    """A prompt and its answer, without the full stop."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class KeyedExample(Example):
    """An example with the key that decides its side.

    Examples that share a key are never split between sides.
    """

    key: str


@dataclass(frozen=True)
class Task:
    """A named set of examples.

    Attributes:
        name: by which commands and records call it.
        title: what a table shows for it.
        generate: yields all examples, in any order, repeated ones included.
        choices: all answers that there are, where they are few.
        held_out_share: share of the keys that is for tests and never trained on.
    """

    name: str
    title: str
    generate: Callable[[], Iterator[KeyedExample]]
    choices: tuple[str, ...] = ()
    held_out_share: float = 0.15

    def between(self, low: float, high: float) -> list[KeyedExample]:
        """List the examples whose keys' hashes are in [`low`, `high`), in a fixed order."""
        unique = {e.prompt: e for e in self.generate()}  # the VADER lexicon repeats a few words
        chosen = [e for e in unique.values() if low <= hash_share(e.key) < high]
        return sorted(chosen, key=lambda e: (hash_share(e.prompt), e.prompt))


@dataclass(frozen=True)
class Split:
    """The three sides of a task; no two of them share a key.

    Attributes:
        train: examples to train on.
        validation: examples to choose settings on.
        test: examples that results are reported on.
    """

    train: tuple[KeyedExample, ...]
    validation: tuple[KeyedExample, ...]
    test: tuple[KeyedExample, ...]


@cache
def split(task: Task) -> Split:
    """Split a task's examples by the hash of their keys."""
    return Split(
        train=tuple(task.between(task.held_out_share + VALIDATION_SHARE, 1)),
        validation=tuple(validation_examples(task, VALIDATION_EXAMPLES)),
        test=tuple(task.between(0, task.held_out_share)[:TEST_EXAMPLES]),
    )


def validation_examples(task: Task, count: int) -> list[KeyedExample]:
    """Return the first validation examples, or all if there are fewer."""
    return task.between(task.held_out_share, task.held_out_share + VALIDATION_SHARE)[:count]


def hash_share(text: str) -> float:
    """Map a text to [0, 1), evenly and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
