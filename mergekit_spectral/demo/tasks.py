"""The demo's three tasks, made from data that comes with PyPI packages."""

from __future__ import annotations

from collections.abc import Iterator

import inflect
from num2words import num2words  # type: ignore[import-untyped]

from mergekit_spectral.demo.examples import Example, Task, hash_share
from mergekit_spectral.demo.words import is_plain_word, lines, nouns


def _numbers() -> Iterator[Example]:
    for number in range(1, 1000):
        yield Example(
            f"The number {number} in Spanish is", f" {num2words(number, lang='es')}", str(number)
        )


def _plurals() -> Iterator[Example]:
    grammar = inflect.engine()
    for noun in nouns():
        if grammar.singular_noun(noun):
            continue
        plural = grammar.plural_noun(noun)
        # A third of the regular nouns is kept: with all of them, adding an s would score 88%.
        if plural != noun + "s" or hash_share("keep " + noun) < 1 / 3:
            yield Example(f"The plural of {noun} is", f" {plural}", noun)


def _sentiment() -> Iterator[Example]:
    for line in lines("vaderSentiment", "vader_lexicon.txt"):
        word, score = line.split("\t")[:2]
        # Words that raters found near neutral have no clear answer.
        if is_plain_word(word) and abs(float(score)) >= 1.5:
            answer = " positive" if float(score) > 0 else " negative"
            # Inflections of one word (abuse, abused, abuser) share their first letters.
            yield Example(f"The sentiment of {word} is", answer, word[:4])


TASKS = (
    Task("numbers", "Spanish numbers", _numbers),
    Task("plurals", "plurals", _plurals),
    Task("sentiment", "sentiment", _sentiment, choices=(" positive", " negative")),
)
