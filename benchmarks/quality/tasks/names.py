"""Tasks about names that Babel knows: cities' countries, and which language a name is from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from babel import Locale
from babel.core import get_global

from benchmarks.quality.tasks.task import KeyedExample, Task

LANGUAGES = {
    "de": " German",
    "es": " Spanish",
    "fr": " French",
    "it": " Italian",
    "nl": " Dutch",
    "pl": " Polish",
}


def cities() -> Iterator[KeyedExample]:
    """Yield the cities that time zones are named after, with their countries."""
    countries = Locale("en").territories
    for zone, code in sorted(get_global("zone_territories").items()):
        area, _, city = zone.replace("_", " ").rpartition("/")
        country = countries[code]
        # Stations, and zones that are named after their whole country, are no cities in one.
        if area in ("", "Etc", "Antarctica") or city in country or country in city:
            continue
        if _is_plain(country):
            yield KeyedExample(f"The city of {city} is in", f" {country}", city)


def _is_plain(country: str) -> bool:
    """Tell whether a country is commonly named so, unlike Myanmar (Burma), and no island."""
    words = country.split()
    return len(words) < 3 and all(map(str.isalpha, words)) and "Island" not in country


def languages() -> Iterator[KeyedExample]:
    """Yield names of countries, languages and months that one language alone spells so."""
    readings: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for code in ("en", *LANGUAGES):
        for key, name in _names(Locale(code)):
            readings[name.lower()].add((code, key))
    for name, found in sorted(readings.items()):
        codes = {code for code, _ in found}
        if len(codes) == 1 and "en" not in codes and name.isalpha() and len(name) > 3:
            code, key = min(found)
            # A name's translations, which are often similar, are on one side.
            yield KeyedExample(f"The language of {name} is", LANGUAGES[code], key)


def _names(locale: Locale) -> Iterator[tuple[str, str]]:
    for code, name in locale.territories.items():
        yield f"territory {code}", name
    for code, name in locale.languages.items():
        yield f"language {code}", name
    for number, name in locale.months["format"]["wide"].items():
        yield f"month {number}", name


TASKS = (
    Task("cities", "cities' countries", cities, held_out_share=0.36),
    Task("languages", "words' languages", languages, choices=tuple(LANGUAGES.values())),
)
