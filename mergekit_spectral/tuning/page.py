"""Show a tuning as one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.page import embedded, fill_template
from mergekit_spectral.reporting.plots import MARKERS, line_style
from mergekit_spectral.tuning.candidates import COMPARED, Candidate, find_parameter, has_scale
from mergekit_spectral.tuning.plots import draw_tuning
from mergekit_spectral.tuning.results import Result, Tuning
from mergekit_spectral.tuning.sets import LIKELIHOOD, PERPLEXITY, metric_name
from mergekit_spectral.tuning.summary import (
    by_candidate,
    find_result,
    in_words,
    input_names,
    listed,
    most_examples,
    table,
    titles,
    unit,
    value_names,
    with_error,
)

MARKS = dict(zip(MARKERS, "●■◆▲▼✚★✖", strict=True))
"""matplotlib's markers as characters."""
SHOWN = {LIKELIHOOD: "accuracy", PERPLEXITY: "perplexity"}
"""What the table of results has of a data set, by its metric. Of others it has the metric."""
NOTHING = "–"
HOW_SPLIT = (
    "One half of each data set chooses, and the other half reports: the best of many merges looks "
    "better than it is on the examples that chose it. Which half an example is in depends on its "
    "content only."
)


@dataclass(frozen=True)
class CandidateRow:
    """A candidate in the legend and in the table.

    Attributes:
        name: in the legend.
        cells: of the table, after the mark.
        color: of the mark, in CSS.
        mark: the character of its marker.
        is_dashed: whether its line is.
        is_pale: whether it was compared on a part of the examples.
        is_taken: whether its row is emphasized.
    """

    name: str
    cells: tuple[str, ...]
    color: str
    mark: str
    is_dashed: bool
    is_pale: bool
    is_taken: bool


def tuning_page(tuning: Tuning, recipe: str) -> str:
    """Return the page of a tuning. It needs no other file and no network.

    Args:
        tuning: what was found.
        recipe: text of the tuned recipe.
    """
    headline, *reasons = in_words(tuning)
    _, results = table(tuning)
    names = value_names(tuning)
    settings = [*tuning.compared_to, *tuning.searched]
    return fill_template(
        "tuning",
        title=f"{tuning.recipe}, tuned on {_counted(len(tuning.sets), 'data set')}",
        headline=headline,
        reasons=reasons,
        recipe=recipe,
        columns=[
            (name, SHOWN.get(metric, metric_name(metric)))
            for name, metric in zip(tuning.sets, tuning.metrics, strict=True)
        ],
        results=[(row[0], *row[-len(names) :], *row[1 : -len(names)]) for row in results],
        value_names=names,
        scale_name=_scale_name(tuning),
        how_to_read=_how_to_read(tuning),
        plots=[embedded(plot) for plot in draw_tuning(tuning)],
        candidates=list(_candidate_rows(tuning)),
        candidates_header=(
            "method",
            *_columns(tuning),
            f"best {_scale_name(tuning)}",
            unit(tuning),
            "examples of each set",
        ),
        split_header=(
            *("data set", "examples that choose", "that report", "counts as 1"),
            *["weight"] * _has_weights(tuning),
        ),
        split=_split_rows(tuning),
        how_split=HOW_SPLIT,
        values_header=("model", *_value_columns(tuning)),
        reported=_value_rows(titles(tuning), tuning.results),
        scored_header=("setting", *_value_columns(tuning), "examples of each set"),
        scored=[
            (*row, _examples(one, tuning))
            for row, one in zip(
                _value_rows(_setting_names(settings), settings), settings, strict=True
            )
        ],
        facts=_facts(tuning),
    )


def _candidate_rows(tuning: Tuning) -> Iterator[CandidateRow]:
    own, chosen = (
        find_result(tuning.results, name).candidate
        for name in (tuning.recipe_setting, tuning.chosen)
    )
    for number, (candidate, results) in enumerate(by_candidate(tuning).items()):
        style = line_style(number)
        best = max(results, key=lambda one: one.value)
        is_pale = best.examples != most_examples(tuning)
        note = " (the recipe)" if candidate == own else ""
        yield CandidateRow(
            name=f"{candidate}{note}" + (f", {best.examples} examples" if is_pale else ""),
            cells=(
                candidate.method + note,
                *(column(candidate) for column in _columns(tuning).values()),
                f"{best.scale:g}" if has_scale(candidate.method) else NOTHING,
                with_error(best),
                _examples(best, tuning),
            ),
            color="inherit" if style["color"] == "#000000" else style["color"],
            mark=MARKS[style["marker"]],
            is_dashed=style["linestyle"] != "-",
            is_pale=is_pale,
            is_taken=candidate == chosen,
        )


def _columns(tuning: Tuning) -> dict[str, Callable[[Candidate], str]]:
    """Return the columns of what differs between candidates, besides the method."""
    columns: dict[str, Callable[[Candidate], str]] = {
        **{name: partial(_value, name) for name in COMPARED},
        "weights": _weights,
    }
    return {
        name: column
        for name, column in columns.items()
        if any(getattr(candidate, name) is not None for candidate in by_candidate(tuning))
    }


def _value(name: str, candidate: Candidate) -> str:
    if name in candidate.values:
        return str(candidate.values[name])
    return NOTHING if find_parameter(candidate.method, name) is None else "the recipe's"


def _weights(candidate: Candidate) -> str:
    if candidate.weights is None:
        return "the recipe's"
    return "× " + ", ".join(f"{weight:g}" for weight in candidate.weights)


def _scale_name(tuning: Tuning) -> str:
    return "factor of λ" if tuning.scales_lambda else "λ"


def _how_to_read(tuning: Tuning) -> str:
    names = short_names(input_names(tuning))
    inputs = listed([f"{number} is {name}" for number, name in enumerate(names, start=1)])
    pale = any(one.examples != most_examples(tuning) for one in tuning.searched)
    return (
        "Each mark is the mean over the examples that choose, with one standard error. Dotted "
        f"lines are the base and each input alone: {inputs}. Dashed lines are the recipe's "
        f"{_scale_name(tuning)} and the one that is taken. The open square is the recipe, and the "
        "circle is what is taken."
        + " Pale candidates were compared on fewer examples, so their errors are larger."
        * pale
    )


def _has_weights(tuning: Tuning) -> bool:
    """Return whether some data sets count more than others."""
    return len(set(tuning.weights)) > 1


def _split_rows(tuning: Tuning) -> list[tuple[str, ...]]:
    return [
        (
            *(name, str(choosing), str(reporting), _reference(tuning, number)),
            *[f"{tuning.weights[number]:g}"] * _has_weights(tuning),
        )
        for number, (name, (choosing, reporting)) in enumerate(
            zip(tuning.sets, tuning.examples, strict=True)
        )
    ]


def _reference(tuning: Tuning, number: int) -> str:
    """Return what a data set's values are divided by, in words."""
    name = tuning.inputs[number]
    if name is not None:
        inputs = input_names(tuning)
        return f"{short_names(inputs)[inputs.index(name)]} alone"
    if tuning.objective == "normalized":
        return "the best input alone"
    return "the base" if tuning.metrics[number] == PERPLEXITY else NOTHING


def _value_columns(tuning: Tuning) -> list[str]:
    """Return the names of the columns of `_value_rows`."""
    columns = zip(tuning.sets, tuning.metrics, strict=True)
    return [unit(tuning), *(f"{name}, {metric_name(metric)}" for name, metric in columns)]


def _value_rows(names: Sequence[str], results: Sequence[Result]) -> list[tuple[str, ...]]:
    return [
        (name, with_error(one), *(with_error(each) for each in one.sets))
        for name, one in zip(names, results, strict=True)
    ]


def _setting_names(settings: Sequence[Result]) -> list[str]:
    alone = [one.name for one in settings if one.candidate is None]
    short = dict(zip(alone, [alone[0], *short_names(alone[1:])], strict=True))
    return [short.get(one.name, one.name) for one in settings]


def _examples(one: Result, tuning: Tuning) -> str:
    return "all" if one.examples in (None, most_examples(tuning)) else str(one.examples)


def _facts(tuning: Tuning) -> str:
    low, high = tuning.limits
    return (
        f"{_counted(len(tuning.searched), 'setting')} of "
        f"{_counted(len(by_candidate(tuning)), 'candidate')} were scored, with a "
        f"{_scale_name(tuning)} from {low:g} to {high:g}. It took {tuning.seconds / 60:.1f} min."
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
