"""What a tuning found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mergekit_spectral.tuning.candidates import Candidate
from mergekit_spectral.tuning.choice import Difference, Kind, Objective, Values
from mergekit_spectral.tuning.scorer import Setting
from mergekit_spectral.tuning.sets import is_task


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class SetResult:
    """A setting on one data set.

    Attributes:
        value: mean likelihood of the answers or of the right choices, 1 / perplexity, or a task's
            metric.
        error: its standard error.
        accuracy: share of right answers; None for text and tasks.
    """

    value: float
    error: float
    accuracy: float | None


@dataclass(frozen=True)
class Result:
    """A setting on all data sets.

    Attributes:
        name: of the setting.
        candidate: the setting's; None for the base and for inputs alone.
        scale: λ, or the factor of λ; None for the base and for inputs alone.
        examples: number of examples of each set, if not all.
        value: of the objective.
        error: its standard error.
        mean: the weighted mean of the data sets.
        worst: the worst of the data sets.
        sets: by data set.
    """

    name: str
    candidate: Candidate | None
    scale: float | None
    examples: int | None
    value: float
    error: float
    mean: Estimate
    worst: Estimate
    sets: tuple[SetResult, ...]


@dataclass(frozen=True)
class Tuning:
    """What a tuning found.

    Attributes:
        recipe: name of the recipe's file.
        sets: names of the data sets.
        metrics: by set, what its value is.
        weights: by set, its weight in the mean.
        examples: number of examples of each set: to choose by, and to report on.
        inputs: by set, the name of the input that it is normalized by, or None.
        objective: mean, worst or normalized.
        scales_lambda: whether scales are factors of the recipe's λ.
        searched: all settings that were scored, on the examples that they are chosen by.
        compared_to: the base, the inputs alone and the recipe itself, on all examples that settings
            are chosen by.
        recipe_setting: name of the setting that is the recipe itself.
        best: name of the setting that was the best where settings are chosen.
        limits: the smallest and the largest scale that were searched.
        chosen: name of the setting that is taken: the best one, or the recipe itself if that is
            within one standard error of it.
        gain_of_best: by how much the best setting is above the recipe on the examples that settings
            are chosen by.
        gain: by how much the chosen setting is above the recipe on the other examples.
        results: on the other examples: of the base, the inputs alone, the recipe, and the chosen
            setting.
        changes: what `tuned.yml` changes in the recipe, by the key.
        cut: number of examples that are longer than what is read of them.
        seconds: that the tuning took.
    """

    recipe: str
    sets: tuple[str, ...]
    metrics: tuple[str, ...]
    weights: tuple[float, ...]
    examples: tuple[tuple[int, int], ...]
    inputs: tuple[str | None, ...]
    objective: Kind
    scales_lambda: bool
    searched: tuple[Result, ...]
    compared_to: tuple[Result, ...]
    recipe_setting: str
    best: str
    limits: tuple[float, float]
    chosen: str
    gain_of_best: Difference
    gain: Difference
    results: tuple[Result, ...]
    changes: Mapping[str, object]
    cut: int
    seconds: float

    @property
    def is_changed(self) -> bool:
        """Whether something else than the recipe is taken."""
        return self.chosen != self.recipe_setting

    def _repr_html_(self) -> str:
        """Return the decision and the table of results, which notebooks show."""
        from mergekit_spectral.tuning.summary import as_html

        return as_html(self)

    @property
    def tasks(self) -> list[str]:
        """Names of the sets that are tasks of lm-eval."""
        return [
            name for name, metric in zip(self.sets, self.metrics, strict=True) if is_task(metric)
        ]


def result(
    setting: Setting,
    objective: Objective,
    scores: Sequence[Values],
    examples: int | None = None,
    accuracies: Sequence[float | None] | None = None,
) -> Result:
    """Return a setting's result from its scores, one array [items] for each set."""
    mean, worst = (
        Estimate(each.value(scores), each.error(scores))
        for each in (objective.of_kind("mean"), objective.of_kind("worst"))
    )
    return Result(
        name=setting.name,
        candidate=setting.candidate,
        scale=setting.scale if setting.candidate else None,
        value=objective.value(scores),
        error=objective.error(scores),
        mean=mean,
        worst=worst,
        examples=examples,
        sets=tuple(
            SetResult(value=value, error=error, accuracy=accuracy)
            for value, error, accuracy in zip(
                *objective.sets_with_errors(scores),
                accuracies or [None] * len(scores),
                strict=True,
            )
        ),
    )
