"""Change values in a recipe's text, and leave everything else as its author wrote it.

PyYAML, with which mergekit reads recipes, reports where each value begins and ends. Only these
characters are replaced. Libraries that load a text and write it anew change more of it: of
``{ weight: 1 }`` the spaces, of a list its line breaks, of a file its indentation or its CRLF.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml
from yaml import AliasEvent, CollectionNode, MappingNode, Mark, Node, ScalarNode, SequenceNode
from yaml.constructor import SafeConstructor

from mergekit_spectral.errors import MergeError
from mergekit_spectral.recipe.text import Key, dotted

COLUMNS = 100
"""The longest line of a comment."""

_LINE_BREAK = r"(?:\r\n|\r(?!\n)|[\n\x85\u2028\u2029])"  # YAML's
_IN_LINE = r"[^\r\n\x85\u2028\u2029]*"
_MERGE_KEY = "tag:yaml.org,2002:merge"


def edit_recipe(text: str, changes: Mapping[Key, Any], comment: str | None = None) -> str:
    """Return a recipe's text with some values changed.

    A value is replaced where it is written. A list whose length changes, and a mapping that loses
    keys, are written anew, on one line. A key that is missing is added after the last one of its
    mapping; mappings on the way to it are added too. If a value is written once for several places,
    with an anchor and aliases, each place keeps its own value: an alias is replaced by what it
    stands for if that no longer is what the anchor has.

    Args:
        text: YAML, with the line breaks that the file has, and its byte order mark, if any.
        changes: new values by their places, such as ("parameters", "lambda"). Made of mappings,
            lists, strings, numbers, booleans and None.
        comment: goes on top of the text. An earlier comment there that begins with the same three
            words is replaced.

    Raises:
        yaml.YAMLError: the text is not YAML, or more than one document.
        MergeError: a place cannot have a value, or the text contains itself, or a change would
            change other places through a merge key, ``<<``.
    """
    try:
        wanted = change_values(yaml.safe_load(text), changes)
    except RecursionError:
        raise MergeError("the recipe is nested too deeply, or contains itself.") from None
    newline = match[0] if (match := re.search(_LINE_BREAK, text)) else "\n"
    edited = _Editor(text, newline).edited(wanted)
    if comment:
        edited = _with_comment(edited, comment, newline)
    try:
        is_right = _same(yaml.safe_load(edited), wanted)
    except (yaml.YAMLError, ValueError):
        is_right = False
    if not is_right:
        raise AssertionError(f"the changes {dict(changes)} cannot be made in this text:\n{text}")
    return edited


def change_values(values: Any, changes: Mapping[Key, Any]) -> Any:
    """Return a recipe's values with some changed. Mappings that are missing on the way are added.

    Args:
        values: a recipe, as YAML reads it. They stay as they are.
        changes: new values by their places.

    Raises:
        MergeError: a place cannot have a value.
    """
    changed = _copy(values)
    for key, value in changes.items():
        _set(changed, key, _copy(value))
    return changed


def _copy(value: Any) -> Any:
    """Return mappings and lists that no two places share, as they do after aliases."""
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(inner) for inner in value]
    return value


def _set(values: Any, key: Key, value: Any) -> None:
    """Set the value at a place, and make the mappings on the way to it.

    Raises:
        MergeError: there is something else on the way, or a list is too short.
    """
    place = values
    for depth, part in enumerate(key, start=1):
        around = f"`{dotted(key[: depth - 1])}`" if depth > 1 else "the recipe"
        if isinstance(place, list):
            if part not in range(len(place)):
                raise MergeError(f"`{dotted(key)}` cannot be set: {around} has no entry {part}.")
        elif not isinstance(place, dict):
            raise MergeError(f"`{dotted(key)}` cannot be set: {around} is {place!r}, no mapping.")
        if depth == len(key):
            place[part] = value
        elif isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = place[part]


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal. True is not 1, and a NaN equals a NaN."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    are_nan = one != one and other != other
    return are_nan or (one == other and isinstance(one, bool) == isinstance(other, bool))


class _Alias(Node):
    """An alias. Its value is the node that it repeats."""

    id = "alias"


class _Place(NamedTuple):
    """Where a node is.

    Attributes:
        parent: the mapping or list around it.
        key: its key's node, or its number in a list.
        anchor: its own, without the ampersand.
        inside: of a mapping or a list, where its inside begins, after an anchor and a bracket.
    """

    parent: Node | None
    key: Node | int | None
    anchor: str | None
    inside: Mark


class _Composer(yaml.SafeLoader):
    """Composes nodes, each at its own place; for an alias PyYAML has the node that it repeats."""

    def __init__(self, text: str):
        super().__init__(text)
        self.places: dict[Node, _Place] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        is_alias = isinstance(event, AliasEvent)
        if node is not None and is_alias:
            node = _Alias(node.tag, node, event.start_mark, event.end_mark)
        if node is not None:
            anchor = None if is_alias else event.anchor
            self.places[node] = _Place(parent, index, anchor, event.end_mark)
        return node


class _Editor:
    """Collects patches of a text: pairs of positions, and what to put between them.

    Args:
        text: YAML.
        newline: its line break.
    """

    def __init__(self, text: str, newline: str):
        composer = _Composer(text)
        self._text = text
        self._newline = newline
        self._root = composer.get_single_node()
        self._places = composer.places
        self._step = next(filter(None, map(self._step_of, self._places)), 2)
        self._patches: list[tuple[int, int, str]] = []
        self._after: dict[Node, Any] = {}

    def edited(self, wanted: Any) -> str:
        """Return the text with the values that are wanted."""
        if self._root is not None:
            self._edit(self._root, wanted)
        parts, position = [], 0
        for start, end, written in sorted(self._patches, key=lambda patch: patch[0]):
            parts += [self._text[position:start], written]
            position = end
        return "".join([*parts, self._text[position:]])

    def _edit(self, node: Node, new: Any) -> None:
        """Patch what differs between a node and the value that it shall have."""
        if isinstance(node, _Alias):
            if not (node.value in self._after and _same(self._after[node.value], new)):
                self._replace(node, new)
            return
        self._after[node] = new
        if isinstance(node, MappingNode) and isinstance(new, dict):
            self._edit_mapping(node, new)
        elif isinstance(node, SequenceNode) and _length(new) == len(node.value):
            for inner, value in zip(node.value, new, strict=True):
                self._edit(inner, value)
        elif not (isinstance(node, ScalarNode) and _same(_scalar(node), new)):
            self._replace(node, new)

    def _edit_mapping(self, node: MappingNode, new: dict[Any, Any]) -> None:
        own, inherited = self._own_and_inherited(node)
        if own.keys() - new.keys():
            self._replace(node, new)
            return
        if inherited.keys() - new.keys():
            raise _unfit_merge_key(node)
        for key, value in own.items():
            self._edit(value, new[key])
        missing = {
            key: value
            for key, value in new.items()
            if key not in own and not (key in inherited and _same(inherited[key], value))
        }
        if missing:
            self._add(node, missing)

    def _own_and_inherited(self, node: MappingNode) -> tuple[dict[Any, Node], dict[Any, Any]]:
        """Return a mapping's nodes by key, and the values that it takes from others by ``<<``."""
        own: dict[Any, Node] = {}
        inherited: dict[Any, Any] = {}
        for key, value in node.value:
            if key.tag != _MERGE_KEY:
                own[self._value(key)] = value  # of equal keys, YAML takes the last
                continue
            for part in reversed(value.value if isinstance(value, SequenceNode) else [value]):
                is_gone = isinstance(part, _Alias) and part.value not in self._after
                values = None if is_gone else self._value(part)
                if not isinstance(values, dict):
                    raise _unfit_merge_key(node)
                inherited.update(values)
        return own, inherited

    def _value(self, node: Node) -> Any:
        """Return a node's value, after the edit if it has been edited."""
        if isinstance(node, _Alias):
            return self._value(node.value)
        if node in self._after:
            return self._after[node]
        if isinstance(node, MappingNode):
            own, inherited = self._own_and_inherited(node)
            return inherited | {key: self._value(value) for key, value in own.items()}
        if isinstance(node, SequenceNode):
            return [self._value(inner) for inner in node.value]
        return _scalar(node)

    def _replace(self, node: Node, new: Any) -> None:
        """Write a value in the place of a node."""
        parent, key, anchor, _ = self._places[node]
        start, end = node.start_mark.index, self._end(node)
        style = node.style if isinstance(node, ScalarNode) else None
        written = _in_flow(new, style)
        if anchor:
            written = f"&{anchor} {written}"
        if start == end:  # nothing is written, which is null
            if _is_block(parent) and isinstance(key, Node) and isinstance(new, dict) and new:
                self._insert(
                    self._end_of_line(end), self._in_block(new, key.start_mark.column + self._step)
                )
            else:
                self._insert(start, f" {written}")
        elif _is_block(node) and isinstance(key, Node) and key.end_mark.line < node.start_mark.line:
            # The value goes to the key's line, before a comment there. The node's own lines go.
            self._insert(self._text.index(":", key.end_mark.index) + 1, f" {written}")
            above = self._text[: start - node.start_mark.column]
            above = re.sub(rf"{_LINE_BREAK}\Z", "", above)
            self._patches.append((len(above), self._end_of_line(end), ""))
        else:
            self._patches.append((start, end, written))

    def _add(self, node: MappingNode, missing: dict[Any, Any]) -> None:
        """Write keys that a mapping does not have, after those that it has."""
        inside = self._places[node].inside
        if node.flow_style:
            style = node.value[-1][0].style if node.value else None
            written = ", ".join(
                f"{_in_flow(key, style)}: {_in_flow(value)}" for key, value in missing.items()
            )
            if node.value:
                self._insert(self._end(node.value[-1][1]), f", {written}")
            else:
                self._insert(inside.index, written)
            return
        lines = self._in_block(missing, inside.column)
        closed = [value for _, value in node.value if not _ends_in_block_scalar(value)]
        if closed:
            self._insert(self._end_of_line(self._end(closed[-1])), lines)
        else:
            # What follows a block scalar may become a part of it, or change its last line break.
            indent = f"{self._newline}{' ' * inside.column}"
            self._insert(inside.index, lines.removeprefix(indent) + indent)

    def _in_block(self, values: dict[Any, Any], column: int) -> str:
        """Return lines with keys and their values, each after a line break."""
        lines = ""
        for key, value in values.items():
            is_inner = isinstance(value, dict) and value
            inner = (
                self._in_block(value, column + self._step) if is_inner else f" {_in_flow(value)}"
            )
            lines += f"{self._newline}{' ' * column}{_in_flow(key)}:{inner}"
        return lines

    def _insert(self, position: int, written: str) -> None:
        self._patches.append((position, position, written))

    def _end(self, node: Node) -> int:
        """Return where a node ends. For PyYAML, a block ends where the next one begins."""
        if _is_block(node):
            return self._end(_last(node))
        end = node.end_mark.index
        return len(self._text[:end].rstrip()) if _ends_in_block_scalar(node) else end

    def _end_of_line(self, position: int) -> int:
        line_break = re.compile(rf"{_LINE_BREAK}|\Z").search(self._text, position)
        assert line_break
        return line_break.start()

    def _step_of(self, node: Node) -> int:
        """Return how far a mapping is indented below its key, or 0."""
        _, key, _, inside = self._places[node]
        if _is_block(node) and isinstance(node, MappingNode) and isinstance(key, Node):
            return inside.column - key.start_mark.column
        return 0


def _scalar(node: Node) -> Any:
    return SafeConstructor().construct_object(node)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


def _is_block(node: Node | None) -> bool:
    """Whether a node is a collection on lines of its own, not in brackets."""
    return isinstance(node, CollectionNode) and not node.flow_style


def _last(node: Node) -> Node:
    last: Node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return last


def _ends_in_block_scalar(node: Node) -> bool:
    if _is_block(node):
        return _ends_in_block_scalar(_last(node))
    return isinstance(node, ScalarNode) and node.style in ("|", ">")


def _unfit_merge_key(node: MappingNode) -> MergeError:
    return MergeError(
        f"line {node.start_mark.line + 1}: this mapping takes keys from another one through `<<`, "
        "and the change of that one would change this one too; write its keys out here."
    )


class _Dumper(yaml.SafeDumper):
    """Writes values on one line, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: yaml.SafeDumper, value: str) -> ScalarNode:
    style = '"' if len(value.splitlines()) > 1 or value.endswith("\n") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(str, _represent_str)


def _in_flow(value: Any, style: str | None = None) -> str:
    """Return a value as YAML that may be put into any line.

    Args:
        value: the value.
        style: the quotes to use if the value is a string; None for none, if that is possible.
    """
    in_brackets: str = yaml.dump(
        [value],
        Dumper=_Dumper,
        default_flow_style=True,
        default_style=style if isinstance(value, str) else None,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return in_brackets.strip()[1:-1]


def find_comment(text: str, words: str) -> str | None:
    """Return a comment that `edit_recipe` has put on top of a recipe, on one line.

    Args:
        text: YAML.
        words: the first three words of the comment.

    Returns:
        The comment; None if there is none on top that begins so.
    """
    found = re.match(_comment_on_top(words), text)
    if found is None:
        return None
    lines = re.split(_LINE_BREAK, found["comment"])
    return " ".join(line.removeprefix("#").strip() for line in lines).strip()


def _comment_on_top(words: str) -> str:
    """Return a pattern of a text's beginning, up to the end of a comment of three first words."""
    before = rf"\A(?P<before>\ufeff?(?:[ \t]*(?:#{_IN_LINE})?{_LINE_BREAK})*?)"
    first = rf"# {re.escape(words)}(?!\S){_IN_LINE}{_LINE_BREAK}"
    return rf"{before}(?P<comment>{first}(?:#   {_IN_LINE}{_LINE_BREAK})*{_LINE_BREAK}?)"


def _with_comment(text: str, comment: str, newline: str) -> str:
    """Put a comment on top of a text, after a byte order mark, in the place of an earlier one."""
    rest = re.sub(_comment_on_top(" ".join(comment.split()[:3])), r"\g<before>", text)
    lines = [
        line
        for paragraph in comment.splitlines()
        for line in textwrap.wrap(
            paragraph, COLUMNS - len("#   "), break_long_words=False, break_on_hyphens=False
        )
    ]
    marked = newline.join(
        f"{'#   ' if number else '# '}{line}" for number, line in enumerate(lines)
    )
    mark = "\ufeff" if rest.startswith("\ufeff") else ""
    return f"{mark}{marked}{newline}{newline}{rest.removeprefix(mark)}"
