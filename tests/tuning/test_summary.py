"""A tuning in words, and in a notebook."""

from __future__ import annotations

from dataclasses import replace

from support.tunings import tuning

from mergekit_spectral.tuning.choice import Difference
from mergekit_spectral.tuning.sets import LIKELIHOOD
from mergekit_spectral.tuning.summary import in_words, table


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


def test_benchmarks_are_used_up():
    found = replace(tuning(), metrics=(LIKELIHOOD, "acc_norm,none"))
    assert table(found)[0] == ("model", "math", "chat, acc_norm", "mean score", "worst set")
    about_task, about_examples = in_words(found)[-2:]
    assert about_task.startswith("Do not compare other models to this one on chat:")
    assert about_examples.startswith("If the examples are a benchmark's test set")
    only_tasks = replace(found, metrics=("exact_match,whole", "acc_norm,none"))
    assert in_words(only_tasks)[-1].startswith("Do not compare")
    kept = replace(only_tasks, chosen=only_tasks.recipe_setting)
    assert not any("Do not compare" in sentence for sentence in in_words(kept))


def test_notebooks_show_a_table():
    html = tuning(sets=["<math>"])._repr_html_()
    assert "<b>Take drm at λ = 0.67.</b>" in html
    assert "<th>model</th><th>&lt;math&gt;</th><th>mean likelihood</th>" in html
    assert html.count("<tr>") == 6
