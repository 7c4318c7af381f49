"""A recipe's text: its values, and the lines that they stand on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml import MappingNode, Node, SequenceNode

Key = tuple[str | int, ...]
"""Where something stands in a recipe, as in ("models", 0, "parameters", "weight")."""

NOTHING = object()
"""What stands where there is nothing."""


class RecipeText:
    """A recipe as it is written.

    Args:
        text: in YAML.

    Attributes:
        values: what YAML makes of it.

    Raises:
        yaml.YAMLError: it is not YAML, or more than one document.
        ValueError: it holds a value that is none, such as a date without that day.
    """

    def __init__(self, text: str):
        self.values: Any = yaml.safe_load(text)
        self._root = yaml.compose(text, Loader=yaml.SafeLoader)

    def at(self, key: Key) -> Any:
        """Return what stands at a key, or `NOTHING`."""
        value = self.values
        for part in key:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return NOTHING
        return value

    def line(self, key: Key) -> int | None:
        """Return the line, from 1, of a key or list entry, or of the closest that is there."""
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
        """Yield keys that stand twice in one mapping, of which YAML takes the last, with lines."""
        if self._root is not None:
            yield from _repeated(self._root, (), set())


def dotted(key: Key) -> str:
    """Return a key as in ``models[0].parameters.weight``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def _parts(node: Node) -> Iterator[tuple[str | int, Node, Node]]:
    """Yield the parts of a mapping or a list: the key, the node that it stands at, the value."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key.value, key, value
    elif isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            yield number, value, value


def _repeated(node: Node, key: Key, visited: set[int]) -> Iterator[tuple[Key, int]]:
    if id(node) in visited:  # an alias, which may be of what it is in
        return
    visited.add(id(node))
    seen = set()
    for part, where, value in _parts(node):
        if part in seen:
            yield (*key, part), where.start_mark.line + 1
        seen.add(part)
        yield from _repeated(value, (*key, part), visited)
