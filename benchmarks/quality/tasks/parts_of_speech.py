"""Whether a word is a noun, a verb or an adjective: a choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from mergekit_spectral.demo.examples import Example, Task, hash_share
from mergekit_spectral.demo.words import is_plain_word, lines, nouns


def generate() -> Iterator[Example]:
    """Yield words that stand in one of wonderwords' lists alone."""
    words = {
        " noun": set(nouns()),
        " verb": set(lines("wonderwords", "assets/verblist.txt")),
        " adjective": set(lines("wonderwords", "assets/adjectivelist.txt")),
    }
    lists = Counter(chain.from_iterable(words.values()))
    for answer, listed in words.items():
        # An eighth of the nouns are about as many as the verbs or the adjectives.
        share = 1 / 8 if answer == " noun" else 1
        for word in sorted(listed):
            if is_plain_word(word) and lists[word] == 1 and hash_share("keep " + word) < share:
                # Derived words (create, creative) share their first letters.
                yield Example(f"The part of speech of {word} is", answer, word[:4])


TASK = Task(
    "parts_of_speech", "parts of speech", generate, choices=(" noun", " verb", " adjective")
)
