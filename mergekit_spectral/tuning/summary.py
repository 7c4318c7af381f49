"""A tuning in words, as a table, and as the comment in the tuned recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.tuning.candidates import Candidate
from mergekit_spectral.tuning.choice import Difference
from mergekit_spectral.tuning.results import Estimate, Result, SetResult, Tuning
from mergekit_spectral.tuning.scorer import BASE
from mergekit_spectral.tuning.sets import PERPLEXITY, is_task, metric_name


def in_words(tuning: Tuning) -> list[str]:
    """Return what was found, in sentences. The first one is the decision."""
    sentences = [*_verdict(tuning)]
    edges = [one for one in tuning.searched if one.name == tuning.best]
    if edges and edges[0].scale in tuning.limits and len(set(tuning.limits)) > 1:
        sentences.append(
            f"The best λ, {edges[0].scale:g}, is at the edge of what was searched; widen "
            "`--lambda`."
        )
    if tuning.cut:
        sentences.append(
            f"{tuning.cut} examples are longer than what a model reads at once, and the beginnings "
            "of their prompts were left out."
        )
    tasks = tuning.tasks
    if tasks and tuning.is_changed:
        sentences.append(
            f"Do not compare other models to this one on {listed(tasks)}: it was tuned on these "
            "documents, so its scores there say more of the tuning than of the model. Report other "
            "benchmarks, or say beside these scores what the model was tuned on."
        )
    if len(tasks) < len(tuning.sets):
        sentences.append(
            "If the examples are a benchmark's test set, scores on that benchmark no longer say "
            "how good the model is."
        )
    return sentences


def table(tuning: Tuning) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of the results on the examples that were not used to choose.

    A cell has the accuracy, the perplexity of text, or a task's metric.
    """
    sets = [
        f"{name}, {metric_name(metric)}" if is_task(metric) else name
        for name, metric in zip(tuning.sets, tuning.metrics, strict=True)
    ]
    rows = [
        (title, *map(_cell, one.sets, tuning.metrics), *values(tuning, one))
        for title, one in zip(titles(tuning), tuning.results, strict=True)
    ]
    return ("model", *sets, *value_names(tuning)), rows


def value_names(tuning: Tuning) -> list[str]:
    """Return what a table calls the values of a setting on all sets: the objective first."""
    if len(tuning.sets) == 1:
        return [unit(tuning)]
    return [unit(tuning), "mean" if tuning.objective == "worst" else "worst set"]


def values(tuning: Tuning, one: Result) -> list[str]:
    """Return the cells of `value_names`."""
    other = one.mean if tuning.objective == "worst" else one.worst
    return [with_error(one), with_error(other)][: len(value_names(tuning))]


def as_html(tuning: Tuning) -> str:
    """Return the decision and the table of results as HTML."""
    header, rows = table(tuning)
    decision, reason, *_ = in_words(tuning)
    lines = [_row("th", header), *(_row("td", row) for row in rows)]
    return f"<p><b>{escape(decision)}</b> {escape(reason)}</p><table>{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def titles(tuning: Tuning) -> list[str]:
    """Return what the models of the results are: the base, an input, the recipe, what is taken."""
    titles = [BASE.name, *short_names(input_names(tuning))]
    if not tuning.is_changed:
        return [*titles, f"the recipe, which is kept: {tuning.recipe_setting}"]
    return [*titles, f"the recipe: {tuning.recipe_setting}", f"taken: {tuning.chosen}"]


def input_names(tuning: Tuning) -> list[str]:
    """Return the names of the recipe's inputs."""
    return [one.name for one in tuning.results[1:] if one.candidate is None]


def by_candidate(tuning: Tuning) -> dict[Candidate, list[Result]]:
    """Return the settings that were scored, by candidate, the best candidate first."""
    found: dict[Candidate, list[Result]] = {}
    for one in tuning.searched:
        assert one.candidate is not None
        found.setdefault(one.candidate, []).append(one)
    return found


def find_result(results: Sequence[Result], name: str) -> Result:
    """Return the result of a setting."""
    return next(one for one in results if one.name == name)


def most_examples(tuning: Tuning) -> int:
    """Return the number of examples of each set that the last candidates were compared on."""
    return max(one.examples or 0 for one in tuning.searched)


def with_error(one: Result | SetResult | Estimate) -> str:
    """Return a value and its standard error."""
    return f"{one.value:.3f} ± {one.error:.3f}"


def unit(tuning: Tuning) -> str:
    """Return what the value of a setting is called."""
    return f"{tuning.objective} {'score' if tuning.tasks else 'likelihood'}"


def comment(tuning: Tuning) -> str:
    """Return what the tuned recipe says about itself."""
    sets = listed([f"{name} ({sum(tuning.examples[i])})" for i, name in enumerate(tuning.sets)])
    if not tuning.is_changed:
        return (
            f"Tuned by mergekit-spectral on {sets}: nothing was better than this recipe by more "
            "than noise."
        )
    recipe, chosen = (
        find_result(tuning.results, name) for name in (tuning.recipe_setting, tuning.chosen)
    )
    changes = listed([f"`{key}` = {value}" for key, value in tuning.changes.items()])
    return (
        f"Tuned by mergekit-spectral on {sets}: {changes}. On examples that were not used to "
        f"choose, {unit(tuning)} is {with_error(chosen)}; before it was "
        f"{with_error(recipe)}."
    )


def _verdict(tuning: Tuning) -> Iterator[str]:
    gain_of_best = f"{_signed(tuning.gain_of_best)} {unit(tuning)}"
    if not tuning.is_changed:
        yield "Keep the recipe as it is."
        if tuning.best == tuning.recipe_setting:
            yield "No setting that was scored is better than the recipe."
        else:
            yield (
                f"The best setting that was found is {tuning.best}. Compared to the recipe it has "
                f"{gain_of_best}, which is not above zero by more than one standard error."
            )
        return
    yield f"Take {tuning.chosen}."
    yield (
        f"Compared to the recipe it has {_signed(tuning.gain)} {unit(tuning)} on examples that "
        f"were not used to choose{_doubt(tuning.gain)}"
    )
    yield f"On the examples that it was chosen by, it has {gain_of_best}."


def _doubt(gain: Difference) -> str:
    if gain.is_above(2):
        return "."
    if Difference(-gain.mean, gain.error).is_above(2):
        return ", so it is worse there: keep the recipe, or choose by more examples."
    return (
        ", which is within two standard errors of zero: take more examples, or see it as no "
        "difference."
    )


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+.3f} ± {difference.error:.3f}"


def _cell(one: SetResult, metric: str) -> str:
    if metric == PERPLEXITY:
        return f"{1 / one.value:.2f}" if one.value else "inf"
    return f"{one.accuracy:.0%}" if one.accuracy is not None else f"{one.value:.3f}"


def listed(parts: Sequence[str]) -> str:
    """Return parts of a sentence, with commas and an "and" between them."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
