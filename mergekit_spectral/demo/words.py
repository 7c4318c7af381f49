"""Words from the lists that come with PyPI packages."""

from __future__ import annotations

from importlib import resources


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
