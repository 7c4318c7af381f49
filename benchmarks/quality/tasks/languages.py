"""Which language a word is from: a choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from babel import Locale

from mergekit_spectral.demo.examples import Example, Task

LANGUAGES = {
    "de": " German",
    "es": " Spanish",
    "fr": " French",
    "it": " Italian",
    "nl": " Dutch",
    "pl": " Polish",
}


def generate() -> Iterator[Example]:
    """Yield names of countries, languages and months that one language alone spells so."""
    readings: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for code in ("en", *LANGUAGES):
        for key, name in _names(Locale(code)):
            readings[name.lower()].add((code, key))
    for name, found in sorted(readings.items()):
        codes = {code for code, _ in found}
        if len(codes) == 1 and "en" not in codes and name.isalpha() and len(name) > 3:
            code, key = min(found)
            # A name's translations, often alike, lie on one side.
            yield Example(f"The language of {name} is", LANGUAGES[code], key)


def _names(locale: Locale) -> Iterator[tuple[str, str]]:
    for code, name in locale.territories.items():
        yield f"territory {code}", name
    for code, name in locale.languages.items():
        yield f"language {code}", name
    for number, name in locale.months["format"]["wide"].items():
        yield f"month {number}", name


TASK = Task("languages", "words' languages", generate, choices=tuple(LANGUAGES.values()))
