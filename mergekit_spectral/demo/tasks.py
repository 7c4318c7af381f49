"""The demo's three tasks, made from data that comes with PyPI packages.

An example's side (train or held-out) depends on the hash of its own key alone, so a newer
word list can add or remove examples but never moves one from one side to the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources

import inflect
from num2words import num2words  # type: ignore[import-untyped]

HELD_OUT_SHARE = 0.15
HELD_OUT_EXAMPLES = 100


@dataclass(frozen=True)
class Example:
    """One question and its answer.

    ``key`` decides the side: examples that share it are never split between
    training and held-out.
    """

    prompt: str
    answer: str
    key: str


@dataclass(frozen=True)
class Task:
    """A named set of examples, with the words the demo's table shows for it."""

    name: str
    title: str
    generate: Callable[[], Iterator[Example]]

    def train(self) -> list[Example]:
        """List every example outside the held-out share, in a fixed order."""
        return [e for e in self._shuffled() if _hash(e.key) >= HELD_OUT_SHARE]

    def held_out(self, count: int = HELD_OUT_EXAMPLES) -> list[Example]:
        """Take the first `count` examples of the held-out share; none was trained on."""
        return [e for e in self._shuffled() if _hash(e.key) < HELD_OUT_SHARE][:count]

    def _shuffled(self) -> list[Example]:
        unique = {e.prompt: e for e in self.generate()}  # the VADER lexicon repeats a few words
        return sorted(unique.values(), key=lambda e: (_hash(e.prompt), e.prompt))


def _hash(text: str) -> float:
    """Map a text to [0, 1), evenly and the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _numbers() -> Iterator[Example]:
    for number in range(1, 1000):
        yield Example(
            f"The number {number} in Spanish is", f" {num2words(number, lang='es')}", str(number)
        )


def _plurals() -> Iterator[Example]:
    grammar = inflect.engine()
    for noun in _lines("wonderwords", "assets/nounlist.txt"):
        if not _is_plain_word(noun) or grammar.singular_noun(noun):
            continue
        plural = grammar.plural_noun(noun)
        # A third of the regular nouns is kept: with all of them, adding an s would score 88%.
        if plural != noun + "s" or _hash("keep " + noun) < 1 / 3:
            yield Example(f"The plural of {noun} is", f" {plural}", noun)


def _sentiment() -> Iterator[Example]:
    for line in _lines("vaderSentiment", "vader_lexicon.txt"):
        word, score = line.split("\t")[:2]
        # Words that raters found near neutral have no clear answer.
        if _is_plain_word(word) and abs(float(score)) >= 1.5:
            answer = " positive" if float(score) > 0 else " negative"
            # Inflections of one word (abuse, abused, abuser) share their first letters.
            yield Example(f"The sentiment of {word} is", answer, word[:4])


def _is_plain_word(word: str) -> bool:
    return len(word) > 2 and word.isascii() and word.isalpha() and word.islower()


def _lines(package: str, path: str) -> list[str]:
    text = resources.files(package).joinpath(path).read_text(encoding="utf-8")
    return text.splitlines()


TASKS = (
    Task("numbers", "Spanish numbers", _numbers),
    Task("plurals", "plurals", _plurals),
    Task("sentiment", "sentiment", _sentiment),
)
