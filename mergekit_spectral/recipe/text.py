"""A recipe's text: its values, and the line of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml import MappingNode, Node, SequenceNode

Key = tuple[str | int, ...]
"""A place in a recipe, as ("models", 0, "parameters", "weight")."""

MISSING = object()
"""The value at a place that a recipe does not have."""


class RecipeText:
    """A recipe as it is written.

    Args:
        text: YAML.

    Attributes:
        source: the text.
        values: the text as Python's mappings, lists and scalars.

    Raises:
        yaml.YAMLError: the text is not YAML, or more than one document.
        ValueError: it has an impossible value, as a date with a thirteenth month.
    """

    def __init__(self, text: str):
        self.source = text
        self.values: Any = yaml.safe_load(text)
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def at(self, key: Key) -> Any:
        """Return the value at a place, or `MISSING`."""
        value = self.values
        for part in key:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return MISSING
        return value

    def line(self, key: Key) -> int | None:
        """Return the line, from 1, of a key or list entry, or of the closest one around it."""
        if self._root is None:
            return None
        node, line = self._root, None
        for part in key:
            found = next((pair for pair in _parts(node) if pair[0] == part), None)
            if found is None:
                break
            _, where, node = found
            line = where.start_mark.line + 1
        return line

    def repeated(self) -> Iterator[tuple[Key, int]]:
        """Yield keys that are twice in one mapping, where YAML takes the last, and their lines."""
        if self._root is not None:
            yield from _repeated(self._root, (), set())


def dotted(key: Key) -> str:
    """Return a key as in ``models[0].parameters.weight``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def _parts(node: Node) -> Iterator[tuple[str | int, Node, Node]]:
    """Yield the parts of a mapping or a list: the key, the node with its line, the value."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key.value, key, value
    elif isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            yield number, value, value


def _repeated(node: Node, key: Key, visited: set[int]) -> Iterator[tuple[Key, int]]:
    if id(node) in visited:  # an alias, which may contain itself
        return
    visited.add(id(node))
    seen = set()
    for part, where, value in _parts(node):
        if part in seen:
            yield (*key, part), where.start_mark.line + 1
        seen.add(part)
        yield from _repeated(value, (*key, part), visited)
