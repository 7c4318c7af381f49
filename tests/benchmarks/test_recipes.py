"""What recipes take, by the estimates, and what their heads say."""

from __future__ import annotations

import pytest

from benchmarks.recipes import RECIPES, ROOT, TAKES, lines_of


@pytest.mark.parametrize("path", RECIPES)
def test_heads_have_the_estimates(path: str):
    assert TAKES.findall((ROOT / path).read_text()) == [lines_of(path)]
