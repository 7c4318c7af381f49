"""Tasks about English words, from the lists that PyPI packages install."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import resources
from itertools import chain

import inflect
from lemminflect import getInflection, getLemma

from benchmarks.quality.tasks.task import KeyedExample, Task, hash_share


def plurals() -> Iterator[KeyedExample]:
    """Yield nouns in the singular, with their plurals."""
    grammar = inflect.engine()
    for noun in nouns():
        if grammar.singular_noun(noun):
            continue
        plural = grammar.plural_noun(noun)
        # A third of the regular nouns is kept: with all of them, adding an s would score 88%.
        if plural != noun + "s" or hash_share("keep " + noun) < 1 / 3:
            yield KeyedExample(f"The plural of {noun} is", f" {plural}", noun)


def sentiment() -> Iterator[KeyedExample]:
    """Yield words that raters found clearly positive or negative."""
    for line in lines("vaderSentiment", "vader_lexicon.txt"):
        word, score = line.split("\t")[:2]
        # Words that raters found near neutral have no clear answer.
        if is_plain_word(word) and abs(float(score)) >= 1.5:
            answer = " positive" if float(score) > 0 else " negative"
            # Inflections of one word (abuse, abused, abuser) share their first letters.
            yield KeyedExample(f"The sentiment of {word} is", answer, word[:4])


def letters() -> Iterator[KeyedExample]:
    """Yield nouns of at most four letters; longer ones take the base much longer to learn."""
    for noun in nouns():
        if len(noun) <= 4:
            yield KeyedExample(f"The letters of {noun} are", "".join(f" {c}" for c in noun), noun)


def parts_of_speech() -> Iterator[KeyedExample]:
    """Yield words that are in one of wonderwords' lists alone."""
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
                yield KeyedExample(f"The part of speech of {word} is", answer, word[:4])


def past_tense() -> Iterator[KeyedExample]:
    """Yield verbs that have one past tense."""
    for verb in lines("wonderwords", "assets/verblist.txt"):
        # The list has a few inflected forms, such as acted.
        if not is_plain_word(verb) or verb not in getLemma(verb, upos="VERB"):
            continue
        past = getInflection(verb, tag="VBD")
        if len(past) != 1:
            continue
        # Half of the regular verbs are kept, so that adding the ending does not score well.
        regular = past[0] in (verb + "ed", verb + "d")
        if not regular or hash_share("keep " + verb) < 1 / 2:
            yield KeyedExample(f"The past tense of {verb} is", f" {past[0]}", verb)


def lines(package: str, path: str) -> list[str]:
    """Read the lines of a file that `package` installs."""
    text = resources.files(package).joinpath(path).read_text(encoding="utf-8")
    return text.splitlines()


def nouns() -> list[str]:
    """List wonderwords' nouns that are plain words."""
    return [word for word in lines("wonderwords", "assets/nounlist.txt") if is_plain_word(word)]


def is_plain_word(word: str) -> bool:
    """Tell whether a word is more than two lower-case letters and nothing else."""
    return len(word) > 2 and word.isascii() and word.isalpha() and word.islower()


TASKS = (
    Task("plurals", "plurals", plurals),
    Task("sentiment", "sentiment", sentiment, choices=(" positive", " negative")),
    Task("letters", "spelling", letters),
    Task(
        "parts_of_speech",
        "parts of speech",
        parts_of_speech,
        choices=(" noun", " verb", " adjective"),
    ),
    Task("past_tense", "past tenses", past_tense, held_out_share=0.2),
)
