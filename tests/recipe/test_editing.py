"""Change values in a recipe's text; everything else stays byte for byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from yaml import MappingNode, Node, ScalarNode

from mergekit_spectral.errors import MergeError
from mergekit_spectral.recipe.editing import edit_recipe
from mergekit_spectral.recipe.text import Key, RecipeText

ROOT = Path(__file__).parents[2]
RECIPES = {
    str(path.relative_to(ROOT)): path.read_bytes().decode()
    for path in sorted(ROOT.glob("recipes/**/*.yml"))
}
LAMBDA = ("parameters", "lambda")
DENSITY = ("models", 0, "parameters", "density")

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from(["yes", "1.0", "# a", "a: b", "- a", "{a}", "[", "*a", "&a", "~", " a", "a\n"]),
)
KEYS = st.sampled_from(["lambda", "weight", "density", "é", "on", "1", "a key", "value"])


def mappings(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    if not depth:
        return st.dictionaries(KEYS, SCALARS, max_size=3)
    inner = st.one_of(SCALARS, mappings(depth - 1), st.lists(mappings(depth - 1), max_size=2))
    return st.dictionaries(KEYS, inner, max_size=3)


def nodes(node: Node, key: Key = ()) -> Iterator[tuple[Key, Node]]:
    """Yield all places below a node, each with its node. Keys are strings."""
    if isinstance(node, ScalarNode):
        return
    pairs = node.value if isinstance(node, MappingNode) else enumerate(node.value)
    for part, value in pairs:
        place = (*key, part.value if isinstance(part, Node) else part)
        yield place, value
        yield from nodes(value, place)


def at(values: Any, key: Key) -> Any:
    for part in key:
        values = values[part]
    return values


@settings(max_examples=50)
@given(st.sampled_from(sorted(RECIPES)), st.data())
def test_one_scalar_of_our_recipes(name: str, data: st.DataObject):
    text = RECIPES[name]
    places = [
        (key, node) for key, node in nodes(yaml.compose(text)) if isinstance(node, ScalarNode)
    ]
    key, node = data.draw(st.sampled_from(places))
    value = data.draw(SCALARS)
    edited = edit_recipe(text, {key: value})
    before, after = text[: node.start_mark.index], text[node.end_mark.index :]
    assert edited.startswith(before)
    assert edited.endswith(after)
    assert "\n" not in edited[len(before) : len(edited) - len(after)]
    assert at(yaml.safe_load(edited), key) == value


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_search_changes_in_our_recipes(name: str):
    text = RECIPES[name]
    models = MergeConfiguration.model_validate(yaml.safe_load(text)).models
    assert models
    changes: dict[Key, Any] = {("merge_method",): "drm", LAMBDA: 0.7}
    for number in range(len(models)):
        changes["models", number, "parameters", "density"] = 0.3
    edited = edit_recipe(text, changes)
    values = RecipeText(edited)
    assert {key: values.at(key) for key in changes} == changes
    before, after = text.splitlines(), edited.splitlines()
    for line in set(before) ^ set(after):
        assert re.match(r" *(merge_method|parameters|lambda|density):", line), line
    assert edit_recipe(edited, changes) == edited


@given(
    mappings(2).filter(bool),
    st.sampled_from([False, True, None]),
    st.sampled_from([None, "'", '"', "|"]),
    st.sampled_from([2, 4]),
    st.booleans(),
    st.data(),
)
def test_any_layout(
    values: dict[str, Any],
    flow: bool | None,
    quotes: str | None,
    indent: int,
    final_break: bool,
    data: st.DataObject,
):
    text = yaml.safe_dump(
        values,
        default_flow_style=flow,
        default_style=quotes,
        indent=indent,
        allow_unicode=True,
        sort_keys=False,
    )
    text = text if final_break else text.removesuffix("\n")
    loaded = yaml.safe_load(text)
    places = [()] + [key for key, _ in nodes(yaml.compose(text))]
    key = data.draw(st.sampled_from(places))
    if isinstance(at(loaded, key), dict) and data.draw(st.booleans()):
        key = (*key, "added")
        added = edit_recipe(text, {key: 0.5})
        longer = len(added) - len(text)
        assert any(added[:n] + added[n + longer :] == text for n in range(len(text) + 1))
    elif key:
        # That the result has the values is checked in every call.
        edit_recipe(text, {key: data.draw(st.one_of(SCALARS, mappings(1)))})


CASES: dict[str, tuple[str, dict[Key, Any], str]] = {
    "comment at the end of a line": (
        "parameters:\n  lambda: 1.0  # my comment\n",
        {LAMBDA: 0.7},
        "parameters:\n  lambda: 0.7  # my comment\n",
    ),
    "spaces in brackets": (
        "parameters: { weight: 1.0,  lambda: 1 }\n",
        {LAMBDA: 0.7},
        "parameters: { weight: 1.0,  lambda: 0.7 }\n",
    ),
    "aligned values": (
        "parameters:\n  weight:   1\n  lambda  : 1\n",
        {LAMBDA: 0.7},
        "parameters:\n  weight:   1\n  lambda  : 0.7\n",
    ),
    "a gradient": (
        "density: [1,0.7, # middle\n  0.1]\n",
        {("density", 2): 0.2},
        "density: [1,0.7, # middle\n  0.2]\n",
    ),
    "a gradient as a whole, of the same length": (
        "density: [1,0.7, # middle\n  0.1]\n",
        {("density",): [1, 0.8, 0.1]},
        "density: [1,0.8, # middle\n  0.1]\n",
    ),
    "a longer gradient": ("a: [1,0.7] # b\n", {("a",): [1, 0.5, 0]}, "a: [1, 0.5, 0] # b\n"),
    "filters": (
        "w:\n- filter: mlp\n  value: 0.5 # low\n- value: 1\n",
        {("w",): [{"filter": "mlp", "value": 0.7}, {"value": 1}]},
        "w:\n- filter: mlp\n  value: 0.7 # low\n- value: 1\n",
    ),
    "a number for filters": (
        "w: # why\n  - filter: mlp\n    value: 0.5 # low\n  - value: 1 # high\n# dtype\nd: x\n",
        {("w",): 0.7},
        "w: 0.7 # why\n# dtype\nd: x\n",
    ),
    "a number for filters that are not indented": (
        "w:\n- filter: mlp\n  value: 0.5\n- value: 1",
        {("w",): 0.7},
        "w: 0.7",
    ),
    "filters for a number": (
        "w: 0.5 # all\n",
        {("w",): [{"filter": "mlp", "value": 0.5}, {"value": 1}]},
        "w: [{filter: mlp, value: 0.5}, {value: 1}] # all\n",
    ),
    "an entry of a list": ("a:\n  - b: 1\n    c: 2\n  - 3\n", {("a", 0): 4}, "a:\n  - 4\n  - 3\n"),
    "quotes": (
        "'merge_method': \"ties\"\n",
        {("merge_method",): "drm"},
        "'merge_method': \"drm\"\n",
    ),
    "a string that needs quotes": ("a: b\n", {("a",): "yes"}, "a: 'yes'\n"),
    "a value on the next line": ("a:\n  b\nc: 1\n", {("a",): "d"}, "a:\n  d\nc: 1\n"),
    "a value on two lines": ("a: b\n  c\nd: 1\n", {("a",): 2}, "a: 2\nd: 1\n"),
    "a block scalar": ("a: |-\n  b\n\n# c\nd: 1\n", {("a",): "x\ny"}, 'a: "x\\ny"\n\n# c\nd: 1\n'),
    "a tag": ("a: !!float 1\n", {("a",): "b"}, "a: b\n"),
    "a key twice": ("a: 1\na: 2\n", {("a",): 3}, "a: 1\na: 3\n"),
    "an integer that is a float": ("a: 1\n", {("a",): 1.0}, "a: 1\n"),
    "an integer that is no boolean": ("a: 1\n", {("a",): True}, "a: true\n"),
    "CRLF": (
        "a: 1\r\nparameters: # b\r\n  weight: 1\r\n",
        {("a",): 2, LAMBDA: 0.7, ("c", "d"): 3},
        "a: 2\r\nparameters: # b\r\n  weight: 1\r\n  lambda: 0.7\r\nc:\r\n  d: 3\r\n",
    ),
    "a byte order mark": ("\ufeffa: 1\n", {("a",): 2}, "\ufeffa: 2\n"),
    "unicode": ("a: ü😀 # ✓\nb: ö\n", {("b",): "é😀"}, "a: ü😀 # ✓\nb: é😀\n"),
    "tabs": ("a: 1 #\tb\nc: 1\n#\td\n", {("a",): 2, ("e",): 3}, "a: 2 #\tb\nc: 1\ne: 3\n#\td\n"),
    "no line break at the end": ("a: 1", {LAMBDA: 0.7}, "a: 1\nparameters:\n  lambda: 0.7"),
    "a comment without a line break at the end": ("a: 1 # b", {("c",): 2}, "a: 1 # b\nc: 2"),
    "JSON": (
        '{"a": 1, "parameters": {"weight": 1}}',
        {LAMBDA: 0.7},
        '{"a": 1, "parameters": {"weight": 1, "lambda": 0.7}}',
    ),
    "marks of a document": ("--- # a\nb: 1\n...\n", {("c",): 2}, "--- # a\nb: 1\nc: 2\n...\n"),
    "question marks": ("? a\n: 1\n", {("a",): 2, ("b",): 3}, "? a\n: 2\nb: 3\n"),
    "a new key before comments on what follows": (
        "parameters:\n  weight: 1 # all\n\n  # of the result\ndtype: float32\n",
        {LAMBDA: 0.7},
        "parameters:\n  weight: 1 # all\n  lambda: 0.7\n\n  # of the result\ndtype: float32\n",
    ),
    "a new key in brackets": (
        "parameters: { weight: 1 } # a\n",
        {LAMBDA: 0.7, ("parameters", "normalize"): False},
        "parameters: { weight: 1, lambda: 0.7, normalize: false } # a\n",
    ),
    "a new key in brackets over several lines": (
        "parameters: {\n  weight: 1, # a\n}\n",
        {LAMBDA: 0.7},
        "parameters: {\n  weight: 1, lambda: 0.7, # a\n}\n",
    ),
    "a new key in empty brackets": (
        "parameters: {} # a\n",
        {LAMBDA: 0.7},
        "parameters: {lambda: 0.7} # a\n",
    ),
    "a new key where nothing is": (
        "parameters: # a\n# b\ndtype: float32\n",
        {LAMBDA: 0.7},
        "parameters: # a\n  lambda: 0.7\n# b\ndtype: float32\n",
    ),
    "a new key where nothing is, in brackets": (
        "{parameters: , dtype: float32}\n",
        {LAMBDA: 0.7},
        "{parameters: {lambda: 0.7} , dtype: float32}\n",
    ),
    "a new key for null": (
        "parameters: null # a\n",
        {LAMBDA: 0.7},
        "parameters: {lambda: 0.7} # a\n",
    ),
    "a value where nothing is": ("a: # b\nc:\n", {("a",): 1, ("c",): [2]}, "a: 1 # b\nc: [2]\n"),
    "new parameters of models": (
        "models:\n- model: a\n# b\n- model: b\n  parameters: {weight: 1}\n- {model: c}\ndtype: d\n",
        {("models", number, "parameters", "density"): 0.3 for number in range(3)},
        "models:\n- model: a\n  parameters:\n    density: 0.3\n# b\n- model: b\n"
        "  parameters: {weight: 1, density: 0.3}\n- {model: c, parameters: {density: 0.3}}\n"
        "dtype: d\n",
    ),
    "new parameters below a dash, and of the whole recipe": (
        "models:\n  -\n      model: a\n",
        {DENSITY: 0.3, LAMBDA: 0.7},
        "models:\n  -\n      model: a\n      parameters:\n        density: 0.3\n"
        "parameters:\n  lambda: 0.7\n",
    ),
    "new parameters are indented as others are": (
        "models:\n    - model: a\nother:\n    b: 1\n",
        {DENSITY: 0.3},
        "models:\n    - model: a\n      parameters:\n          density: 0.3\nother:\n    b: 1\n",
    ),
    "a block scalar at the end": ("a: 1\nb: |\n  c", {("d",): 2}, "a: 1\nd: 2\nb: |\n  c"),
    "block scalars only": (
        "a:\n  b: |+\n    c\n\n",
        {("a", "d"): 2, ("e",): 3},
        "e: 3\na:\n  d: 2\n  b: |+\n    c\n\n",
    ),
    "an anchor": ("a: &x 1 # a\nb: *x # b\n", {("a",): 2}, "a: &x 2 # a\nb: 1 # b\n"),
    "an alias": ("a: &x {w: 1}\nb: *x # b\n", {("b", "w"): 2}, "a: &x {w: 1}\nb: {w: 2} # b\n"),
    "an anchor and all its aliases": (
        "a: &x {w: 1}\nb: *x\nc: [*x]\n",
        {("a", "w"): 2, ("b", "w"): 2, ("c", 0, "w"): 2},
        "a: &x {w: 2}\nb: *x\nc: [*x]\n",
    ),
    "an anchor within what is replaced": (
        "a:\n  - &x 1\n  - 2\nb: *x\n",
        {("a",): 3},
        "a: 3\nb: 1\n",
    ),
    "a block with an anchor": (
        "a: &x\n  w: 1\nb: *x\nc: *x\n",
        {("a",): 2, ("b",): 2},
        "a: &x 2\nb: *x\nc: {w: 1}\n",
    ),
    "a value from a merge key": (
        "a: &x {w: 1}\nb:\n  <<: *x\n  d: 1\n",
        {("b", "w"): 2},
        "a: &x {w: 1}\nb:\n  <<: *x\n  d: 1\n  w: 2\n",
    ),
    "a value that others take by a merge key": (
        "a: &x {w: 1}\nb: &y {w: 3, v: 1}\nc:\n  <<: [*x, *y]\nd: {<<: *x, w: 4}\n",
        {("a", "w"): 2},
        "a: &x {w: 2}\nb: &y {w: 3, v: 1}\nc:\n  <<: [*x, *y]\n  w: 1\nd: {<<: *x, w: 4}\n",
    ),
    "a value that all take by a merge key": (
        "a: &x {w: 1}\nb: {<<: *x, d: 1}\n",
        {("a", "w"): 2, ("b", "w"): 2},
        "a: &x {w: 2}\nb: {<<: *x, d: 1}\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hard_cases(case: str):
    text, changes, expected = CASES[case]
    assert edit_recipe(text, changes) == expected
    assert edit_recipe(expected, changes) == expected
    assert edit_recipe(text, {}) == text


REFUSED: dict[str, tuple[str, dict[Key, Any], str]] = {
    "a number on the way": (
        "parameters: 1\n",
        {LAMBDA: 0.7},
        r"^`parameters\.lambda` cannot be set: `parameters` is 1, no mapping\.$",
    ),
    "a list too short": (
        "models: [{model: a}]\n",
        {("models", 1, "model"): "b"},
        r"^`models\[1\]\.model` cannot be set: `models` has no entry 1\.$",
    ),
    "an empty file": ("# a\n", {LAMBDA: 0.7}, "the recipe is None, no mapping"),
    "a list": ("- a\n", {LAMBDA: 0.7}, "the recipe has no entry parameters"),
    "a text that contains itself": ("a: &x [*x]\n", {LAMBDA: 0.7}, "contains itself"),
    "a key that a merge key would add elsewhere": (
        "a: &x {w: 1}\nb:\n  <<: *x\n",
        {("a", "d"): 2},
        r"^line 3: this mapping takes keys from another one through `<<`.* write its keys out here",
    ),
    "a merge key without its mapping": ("a: &x {w: 1}\nb: {<<: *x}\n", {("a",): 2}, "line 2: "),
    "a merge key without its anchor": ("a: [&x {w: 1}]\nb: {<<: *x}\n", {("a",): 2}, "line 2: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str):
    text, changes, message = REFUSED[case]
    with pytest.raises(MergeError, match=message):
        edit_recipe(text, changes)


@pytest.mark.parametrize("text", ["a: [1\n", "a: 1\n--- \nb: 2\n", "a: *x\n"])
def test_what_is_not_yaml(text: str):
    with pytest.raises(yaml.YAMLError):
        edit_recipe(text, {LAMBDA: 0.7})


def test_a_wrong_edit_is_not_returned():
    # In this list, `value: 2` is a mapping without braces.
    with pytest.raises(AssertionError, match="cannot be made in this text"):
        edit_recipe("a: [{value: 1}, value: 2]\n", {("a", 1, "filter"): "mlp"})


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_comment_goes_on_top_and_replaces_an_earlier_one(newline: str, mark: str):
    own = newline.join(["# My recipe.", "#   It is mine.", "", "a: 1", ""])
    long = "Tuned by us: " + "one/long-path " * 12 + "\n\nThe score is 0.5."
    first = edit_recipe(mark + own, {("a",): 2}, long)
    lines = first.removeprefix(mark).split(newline)
    assert lines[0].startswith("# Tuned by us: one/long-path one/")
    assert lines[1].startswith("#   one/long-path")
    assert lines[2:4] == ["#   The score is 0.5.", ""]
    assert max(map(len, lines)) <= 100
    assert newline.join(lines[4:]) == own.replace("a: 1", "a: 2")
    second = edit_recipe(first, {("a",): 3}, "Tuned by us: again")
    assert second == f"{mark}# Tuned by us: again{newline * 2}{own.replace('a: 1', 'a: 3')}"
    assert edit_recipe(second, {("a",): 3}, "Tuned by us: again") == second


def test_other_comments_stay():
    text = "# Tuned by usual means\n\n# Tuned by\n---\na: |\n  # Tuned by us: no\n"
    assert edit_recipe(text, {}, "Tuned by us: 1") == f"# Tuned by us: 1\n\n{text}"


def test_an_earlier_comment_below_the_authors_own():
    text = "# mine\n# Tuned by us: 1\n#   more\n# mine, too\na: 1\n"
    assert (
        edit_recipe(text, {}, "Tuned by us: 2") == "# Tuned by us: 2\n\n# mine\n# mine, too\na: 1\n"
    )
