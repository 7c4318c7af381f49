"""The country that a city is in: facts, of which the base knows some."""

from __future__ import annotations

from collections.abc import Iterator

from babel import Locale
from babel.core import get_global

from mergekit_spectral.demo.examples import Example, Task


def generate() -> Iterator[Example]:
    """Yield the cities that time zones are named after."""
    countries = Locale("en").territories
    for zone, code in sorted(get_global("zone_territories").items()):
        area, _, city = zone.replace("_", " ").rpartition("/")
        country = countries[code]
        # Stations, and zones that are named after their whole country, are no cities in one.
        if area in ("", "Etc", "Antarctica") or city in country or country in city:
            continue
        if _is_plain(country):
            yield Example(f"The city of {city} is in", f" {country}", city)


def _is_plain(country: str) -> bool:
    """Tell whether a country is commonly named so, unlike Myanmar (Burma), and no island."""
    words = country.split()
    return len(words) < 3 and all(map(str.isalpha, words)) and "Island" not in country


TASK = Task("cities", "cities' countries", generate, held_out_share=0.36)
