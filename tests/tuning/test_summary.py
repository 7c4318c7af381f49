"""A tuning in words, and in a notebook."""

from __future__ import annotations

from dataclasses import replace

from support.tunings import tuning

from mergekit_spectral.tuning.choice import Difference
from mergekit_spectral.tuning.summary import in_words


def test_a_gain_on_other_examples_is_doubted_if_it_may_be_chance():
    found = tuning()
    assert "standard errors" not in in_words(found)[1]
    for mean, expected in ((0.05, "within two standard errors"), (-0.1, "it is worse there")):
        assert expected in in_words(replace(found, gain=Difference(mean, 0.03)))[1]


def test_nothing_is_better_than_the_recipe():
    found = replace(tuning(gain=0.0), best="drm at λ = 1")
    assert in_words(found)[:2] == [
        "Keep the recipe as it is.",
        "No setting that was scored is better than the recipe.",
    ]


def test_notebooks_show_a_table():
    html = tuning(sets=["<math>"])._repr_html_()
    assert "<b>Take drm at λ = 0.67.</b>" in html
    assert "<th>model</th><th>&lt;math&gt;</th><th>mean likelihood</th>" in html
    assert html.count("<tr>") == 6
