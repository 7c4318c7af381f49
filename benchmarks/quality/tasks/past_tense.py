"""Past tenses: morphology."""

from __future__ import annotations

from collections.abc import Iterator

from lemminflect import getInflection, getLemma

from mergekit_spectral.demo.examples import Example, Task, hash_share
from mergekit_spectral.demo.words import is_plain_word, lines


def generate() -> Iterator[Example]:
    """Yield verbs that have one past tense."""
    for verb in lines("wonderwords", "assets/verblist.txt"):
        # The list has a few inflected forms, such as acted.
        if not is_plain_word(verb) or verb not in getLemma(verb, upos="VERB"):
            continue
        past = getInflection(verb, tag="VBD")
        if len(past) != 1:
            continue
        # Half of the regular verbs is kept, lest the ending alone score too well.
        regular = past[0] in (verb + "ed", verb + "d")
        if not regular or hash_share("keep " + verb) < 1 / 2:
            yield Example(f"The past tense of {verb} is", f" {past[0]}", verb)


TASK = Task("past_tense", "past tenses", generate, held_out_share=0.2)
