"""A tuning in words, as a table, and as the comment in the tuned recipe."""

from __future__ import annotations

from collections.abc import Sequence

from mergekit_spectral.tuning.choice import Difference
from mergekit_spectral.tuning.results import SetResult, Tuning


def in_words(tuning: Tuning) -> list[str]:
    """Return what was found, in sentences."""
    sentences = [_verdict(tuning)]
    if tuning.is_changed:
        sentences.append(
            f"On the other examples it is {_signed(tuning.gain)} {_unit(tuning)} "
            + ("better" if tuning.gain.mean >= 0 else "worse")
            + (
                "."
                if tuning.gain.is_gain
                else ", which is within two standard errors of zero: take more examples, or see it "
                "as no difference."
            )
        )
    edges = [one for one in tuning.searched if one.name == tuning.best]
    if edges and edges[0].scale in tuning.limits:
        sentences.append(
            f"The best λ, {edges[0].scale:g}, is at the edge of what was searched; widen "
            "`--lambda`."
        )
    if tuning.cut:
        sentences.append(
            f"{tuning.cut} examples are longer than what a model reads at once, and the beginnings "
            "of their prompts were left out."
        )
    sentences.append(
        "If the examples are a benchmark's test set, scores on that benchmark no longer say how "
        "good the model is."
    )
    return sentences


def table(tuning: Tuning) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of the results on the examples that were not used to choose.

    A cell has the accuracy, or the perplexity of text.
    """
    header = ("model", *tuning.sets, _unit(tuning))
    rows = [
        (one.name, *map(_cell, one.sets), f"{one.value:.3f} ± {one.error:.3f}")
        for one in tuning.results
    ]
    return header, rows


def comment(tuning: Tuning) -> str:
    """Return what the tuned recipe says about itself."""
    sets = _listed([f"{name} ({sum(tuning.examples[i])})" for i, name in enumerate(tuning.sets)])
    if not tuning.is_changed:
        return (
            f"Tuned by mergekit-spectral on {sets}: nothing was better than this recipe by more "
            "than noise."
        )
    changes = _listed([f"`{key}` = {value}" for key, value in tuning.changes.items()])
    return (
        f"Tuned by mergekit-spectral on {sets}: {changes}. On examples that were not used to "
        f"choose, {_unit(tuning)} is {_value(tuning, tuning.chosen)}; before it was "
        f"{_value(tuning, tuning.recipe_setting)}."
    )


def _verdict(tuning: Tuning) -> str:
    gain = f"{_signed(tuning.gain_when_chosen)} {_unit(tuning)}"
    if tuning.is_changed:
        return f"Take {tuning.chosen}: {gain} more than the recipe, where it was chosen."
    return (
        f"Keep the recipe as it is: the best setting that was found, {tuning.best}, has {gain} "
        "more, which is within two standard errors of zero."
    )


def _value(tuning: Tuning, name: str) -> str:
    one = next(each for each in tuning.results if each.name == name)
    return f"{one.value:.3f} ± {one.error:.3f}"


def _unit(tuning: Tuning) -> str:
    return f"{tuning.objective} likelihood"


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+.3f} ± {difference.error:.3f}"


def _cell(one: SetResult) -> str:
    return f"{one.accuracy:.0%}" if one.accuracy is not None else f"{1 / one.value:.2f}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
