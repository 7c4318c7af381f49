"""The page of a tuning: what it says, and that it holds everything itself."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest
from support.tunings import candidates, tuning

from mergekit_spectral.tuning.candidates import Candidate
from mergekit_spectral.tuning.page import tuning_page
from mergekit_spectral.tuning.results import Tuning

RECIPE = "# Tuned & commented.\nmerge_method: drm\n"


def page(found: Tuning) -> str:
    return tuning_page(found, RECIPE)


def words(html: str) -> str:
    """Return a page's text, without its plots, styles and marks."""
    body = re.sub(r"<(script|style).*?</\1>", "", html, flags=re.DOTALL)
    body = re.sub(r"<wbr>|<span class=\"mark.*?</span>", "", body)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def rows(html: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table after a heading, its header first."""
    table = html[html.index(heading) :].partition("</table>")[0]
    return [
        [words(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr.*?</tr>", table)
    ]


def test_the_decision_and_the_gain_come_first():
    html = page(tuning())
    assert "<h1>Take drm at λ = 0.67.</h1>" in html
    before_the_recipe = words(html.partition("Recipe to use")[0])
    assert "+0.100 ± 0.030 mean likelihood on examples that were not used to" in before_the_recipe
    assert "scores on that benchmark no longer say" in before_the_recipe
    assert "# Tuned &amp; commented.\nmerge_method: drm\n</pre>" in html


def test_a_recipe_that_is_kept():
    html = page(tuning(gain=0.0))
    assert "<h1>Keep the recipe as it is.</h1>" in html
    assert "best setting that was found is drm at λ = 0.67" in words(html)
    last = rows(html, "Results on examples")[-1]
    assert last[0] == "the recipe, which is kept: drm at λ = 1"


def test_nothing_is_loaded_from_elsewhere():
    html = page(tuning(texts=1))
    # A plot of the objective and one of each data set, in light and dark.
    assert html.count("data:image/png;base64,") == 2 * 3
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", html)
    assert not re.search(r"(src|href)=\"(?!data:)", html)


def test_one_data_set_is_the_objective():
    assert page(tuning(sets=["math"])).count("data:image/png;base64,") == 2


def test_results():
    found = tuning(texts=1)
    header, *results = rows(page(found), "Results on examples")
    assert header == ["model", "mean likelihood", "worst set", "math accuracy", "chat perplexity"]
    assert [row[0] for row in results] == [
        "base",
        "math-adapter",
        "chat-adapter",
        "the recipe: drm at λ = 1",
        "taken: drm at λ = 0.67",
    ]
    math, chat = found.results[-1].sets
    assert math.accuracy is not None
    worst = found.results[-1].worst
    assert results[-1][2] == f"{worst.value:.3f} ± {worst.error:.3f}"
    assert results[-1][3:] == [f"{math.accuracy:.0%}", f"{1 / chat.value:.2f}"]


def test_candidates():
    compared = [
        Candidate("drm"),
        Candidate("tsvm"),
        Candidate("ties", 0.2),
        Candidate("drm", 0.5, 0.25, (1.0, 1.5)),
    ]
    header, *found = rows(page(tuning(compared=compared)), "<h2>Candidates")
    assert header[1:5] == ["density", "rank", "weights", "best λ"]
    assert [row[:4] for row in found] == [
        ["drm", "0.5", "0.25", "× 1, 1.5"],
        ["ties", "0.2", "–", "the recipe's"],
        ["tsvm", "–", "–", "the recipe's"],
        ["drm (the recipe)", "the recipe's", "the recipe's", "the recipe's"],
    ]
    assert [row[-1] for row in found] == ["all", "all", "all", "8"]


def test_columns_that_say_nothing_are_left_out():
    header, *_ = rows(page(tuning(compared=[Candidate("drm"), Candidate("ties")])), "<h2>Cand")
    assert header == ["method", "best λ", "mean likelihood", "examples of each set"]


def test_one_candidate_has_no_table():
    html = page(tuning())
    assert "<h2>Candidates" not in html
    assert '<ul class="legend">' not in html


def test_how_the_examples_were_split():
    header, *split = rows(page(tuning(texts=1)), "<h2>Examples")
    assert header[:3] == ["data set", "examples that choose", "that report"]
    assert split == [
        ["math", "20", "20", "math-adapter alone"],
        ["chat", "20", "20", "the base"],
    ]


def test_weights_of_data_sets():
    header, *split = rows(page(replace(tuning(), weights=(1.0, 0.5))), "<h2>Examples")
    assert header[-1] == "weight"
    assert [row[-1] for row in split] == ["1", "0.5"]


def test_scales_are_factors():
    html = page(tuning(scales_lambda=True))
    assert "Values over factor of λ" in html


@pytest.mark.parametrize("count", [1, 12])
def test_names_with_all_characters(count: int):
    """matplotlib would read $…$ as a formula, and HTML <…> as an element."""
    names = [f"$x_{{{number}}}$ <b> 数学" for number in range(3)]
    html = page(tuning(sets=names, compared=candidates(count), inputs=["a$b$", "<i>"]))
    assert "<b>" not in html
    assert all(name in words(html) for name in names)
