"""Short names for tables and plots."""

from __future__ import annotations

from collections.abc import Sequence


def short_names(models: Sequence[str]) -> list[str]:
    """Shorten names of models to their last parts, as few as keep the names distinct."""
    own = [name.rpartition("+")[2] for name in models]
    # The same adapter may be an input on several bases; then the bases' names are needed.
    return shorten(own if len(set(own)) == len(own) else list(models), "/")


def shorten(names: Sequence[str], separator: str) -> list[str]:
    """Shorten names to their last parts, as few as keep the names distinct."""
    parts = [name.strip(separator).split(separator) for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = [separator.join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)
