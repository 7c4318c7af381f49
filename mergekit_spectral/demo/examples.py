"""Examples, and tasks that put each on a side by the hash of its key.

An example's side depends on its own key alone, so a newer word list can add or remove examples
but never moves one from one side to another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELD_OUT_EXAMPLES = 100


@dataclass(frozen=True)
class Example:
    """One question and its answer.

    ``key`` decides the side: examples that share it are never split between sides.
    """

    prompt: str
    answer: str
    key: str


@dataclass(frozen=True)
class Task:
    """A named set of examples, with the words that a table shows for it.

    ``choices`` are all answers there are, where they are few; ``held_out_share`` is the share of
    the keys that is never trained on.
    """

    name: str
    title: str
    generate: Callable[[], Iterator[Example]]
    choices: tuple[str, ...] = ()
    held_out_share: float = 0.15

    def train(self) -> list[Example]:
        """List every example outside the held-out share, in a fixed order."""
        return self.between(self.held_out_share, 1)

    def held_out(self, count: int = HELD_OUT_EXAMPLES) -> list[Example]:
        """Take the first `count` examples of the held-out share; none was trained on."""
        return self.between(0, self.held_out_share)[:count]

    def between(self, low: float, high: float) -> list[Example]:
        """List the examples whose keys' hashes lie in [`low`, `high`), in a fixed order."""
        unique = {e.prompt: e for e in self.generate()}  # the VADER lexicon repeats a few words
        chosen = [e for e in unique.values() if low <= hash_share(e.key) < high]
        return sorted(chosen, key=lambda e: (hash_share(e.prompt), e.prompt))


def hash_share(text: str) -> float:
    """Map a text to [0, 1), evenly and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
