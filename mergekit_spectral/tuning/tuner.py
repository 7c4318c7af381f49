"""The search for one recipe: score, search, choose, and report on other examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

from mergekit_spectral.recipe.text import Key, dotted
from mergekit_spectral.tuning.candidates import Candidate, TunedRecipe, has_scale
from mergekit_spectral.tuning.choice import Difference, Objective, Part, Values
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.results import Tuning, result
from mergekit_spectral.tuning.scorer import BASE, Say, Scorer, Setting, at, parent
from mergekit_spectral.tuning.search import CLOSE, STEP, OutOfTimeError, halve, search_scale
from mergekit_spectral.tuning.sets import ScoredSet

WEIGHT_STEP = 1.5
"""Factor by which the search changes an input's weight."""


@dataclass(frozen=True)
class Found:
    """A candidate's scales on the first items of each set.

    Attributes:
        candidate: the candidate.
        count: number of items of each set, where the set has as many.
        scales: the scores at each scale, one array [items] for each set.
        best: scale with the largest value.
        value: that value.
    """

    candidate: Candidate
    count: int
    scales: Mapping[float, list[Values]]
    best: float
    value: float


class Tuner:
    """The search for one recipe.

    Args:
        recipe: the user's.
        candidates: what is compared; the recipe itself is the first.
        sets: data sets.
        scorer: of settings.
        options: what is searched.
        say: reports progress, a sentence at a time.
    """

    def __init__(
        self,
        recipe: TunedRecipe,
        candidates: Sequence[Candidate],
        sets: Sequence[ScoredSet[Any]],
        scorer: Scorer,
        options: Options,
        say: Say,
    ):
        self.recipe, self.candidates, self.sets = recipe, candidates, sets
        self.scorer, self.options = scorer, options
        self._say = say
        self._count = 0

    def _reference(self, data: ScoredSet[Any], reporting: bool) -> float | None:
        """Return the value of a set that counts as 1.

        It is that of the input that was trained for the set. If none is known, it is that of the
        best input for a normalized value. Otherwise text is compared to the base, because
        perplexities of different texts are not comparable, and other sets are not compared.
        """
        if data.input:
            settings = [parent(data.input)]
        elif self.options.objective == "normalized":
            settings = [parent(model) for model in self.recipe.inputs]
        else:
            settings = [BASE] * data.is_relative
        items = data.items(reporting)
        means = [self.scorer.scores(setting, data, items).mean() for setting in settings]
        return max((float(data.of_mean(mean)) for mean in means), default=None)

    def _objective(self, reporting: bool) -> Objective:
        parts = [
            Part(
                len(each.items(reporting)),
                each.of_mean,
                self._reference(each, reporting),
                each.weight,
            )
            for each in self.sets
        ]
        return Objective(parts, self.options.objective, self.options.seed)

    def _reported(self, setting: Setting) -> list[Values]:
        return [self.scorer.scores(setting, each, each.reporting) for each in self.sets]

    def _accuracies(self, setting: Setting) -> list[float | None]:
        """Return, by set, the share of right answers among those that are reported on."""
        accuracies: list[float | None] = []
        for each in self.sets:
            right = [one.right for one in self.scorer.records(setting, each, each.reporting)]
            accuracies.append(None if None in right else sum(map(bool, right)) / len(right))
        return accuracies

    def search(self, objective: Objective) -> list[Found]:
        """Compare all candidates, each at its best scale, until one is left or the time is up.

        Args:
            objective: on all items that settings are chosen by.

        Returns:
            What was found, the best candidate first.
        """
        self.scorer.start_budget()
        found: dict[Candidate, Found] = {}
        most = max(len(each.choosing) for each in self.sets)
        try:
            halve(self.candidates, most, partial(self._compare, objective, most, found))
        except OutOfTimeError:
            self._say("the time is up")
        return sorted(found.values(), key=lambda one: (one.count, one.value), reverse=True)

    def _compare(
        self,
        objective: Objective,
        most: int,
        found: dict[Candidate, Found],
        candidate: Candidate,
        count: int,
    ) -> float:
        """Search for a candidate's best scale on the first items of each set."""
        low, high = self.options.scales
        value_at, own = self._values(objective, candidate, count)
        before = found.get(candidate)
        if not has_scale(candidate.method):
            values = {1.0: value_at(1.0)}
        else:
            start = before.best if before else min(high, max(low, self.recipe.own_scale))
            # On few examples, a finer search would follow their noise.
            values = search_scale(value_at, start, low, high, CLOSE if count == most else STEP**2)
        if not values:
            raise OutOfTimeError
        best = max(values, key=values.__getitem__)
        found[candidate] = Found(candidate, count, own, best, values[best])
        return values[best]

    def _values(
        self, objective: Objective, candidate: Candidate, count: int
    ) -> tuple[Callable[[float], float], dict[float, list[Values]]]:
        """Return a function that gives a candidate's value at a scale, and the scores it keeps."""
        part = objective.of_first(count)
        scores: dict[float, list[Values]] = {}

        def value_at(scale: float) -> float:
            setting = at(candidate, scale)
            scores[scale] = [
                self.scorer.scores(setting, each, each.choosing[:count], within_budget=True)
                for each in self.sets
            ]
            value = part.value(scores[scale])
            self._report(setting, value, count)
            return value

        return value_at, scores

    def run(self, start: float) -> tuple[Tuning, dict[Key, Any]]:
        """Score what is compared, search, choose, and report.

        Args:
            start: time at which the tuning began.

        Returns:
            What was found, and the changes of the recipe by their places.
        """
        own = at(self.recipe.own, self.recipe.own_scale)
        inputs = [parent(model) for model in self.recipe.inputs]
        for setting in (*inputs, BASE, own):
            self._say(f"scoring {setting.name}")
            for each in self.sets:
                self.scorer.scores(setting, each, (*each.choosing, *each.reporting))
        choosing = self._objective(reporting=False)
        found = self.search(choosing)
        best = found[0]  # the recipe itself at least, which has been scored
        if self.options.weights and best.count == max(len(each.choosing) for each in self.sets):
            best = self.search_weights(choosing, best)
            found.insert(0, best)
        chosen, gain_of_best = self.choose(choosing, best, own)
        assert chosen.candidate is not None
        self._say(f"scoring {chosen.name} on the other examples")
        reporting = self._objective(reporting=True)
        changes = self.recipe.changes(chosen.candidate, chosen.scale)
        compared = list(dict.fromkeys((BASE, *inputs, own, chosen)))
        return Tuning(
            recipe=self.recipe.recipe.path.name,
            sets=tuple(each.name for each in self.sets),
            metrics=tuple(each.metric for each in self.sets),
            weights=tuple(each.weight for each in self.sets),
            examples=tuple((len(each.choosing), len(each.reporting)) for each in self.sets),
            inputs=tuple(str(each.input) if each.input else None for each in self.sets),
            objective=self.options.objective,
            scales_lambda=self.recipe.scales_lambda,
            searched=tuple(
                result(at(one.candidate, scale), part, scores, one.count)
                for one in found
                for part in [choosing.of_first(one.count)]
                for scale, scores in sorted(one.scales.items())
            ),
            compared_to=tuple(
                result(
                    each,
                    choosing,
                    [self.scorer.scores(each, one, one.choosing) for one in self.sets],
                )
                for each in (BASE, *inputs, own)
            ),
            recipe_setting=own.name,
            best=at(best.candidate, best.best).name,
            limits=self.options.scales,
            chosen=chosen.name,
            gain_of_best=gain_of_best,
            gain=reporting.difference(*(self._reported(each) for each in (chosen, own))),
            results=tuple(
                result(each, reporting, self._reported(each), accuracies=self._accuracies(each))
                for each in compared
            ),
            changes={dotted(key): value for key, value in changes.items()},
            cut=sum(item.cut for each in self.sets for item in (*each.choosing, *each.reporting)),
            seconds=time.monotonic() - start,
        ), changes

    def search_weights(self, objective: Objective, best: Found) -> Found:
        """Change one input's weight at a time, at a fixed scale, as long as that is a gain."""
        failed = 0  # changes in a row that were no gain
        steps = [
            (number, step)
            for number in range(len(self.recipe.inputs))
            for step in (WEIGHT_STEP, 1 / WEIGHT_STEP)
        ]
        try:
            for number, step in cycle(steps):
                weights = list(best.candidate.weights or [1.0] * len(self.recipe.inputs))
                weights[number] = float(f"{weights[number] * step:.3g}")
                changed = replace(best.candidate, weights=tuple(weights))
                value_at, own = self._values(objective, changed, best.count)
                value = value_at(best.best)
                gain = objective.difference(own[best.best], best.scales[best.best])
                if gain.is_above(1):
                    best, failed = Found(changed, best.count, own, best.best, value), 0
                else:
                    failed += 1
                if failed == len(steps):
                    break
        except OutOfTimeError:
            self._say("the time is up")
        return best

    def choose(self, objective: Objective, best: Found, own: Setting) -> tuple[Setting, Difference]:
        """Take the best setting, unless the recipe is within one standard error of it.

        Returns:
            What is taken, and by how much the best setting is above the recipe on the items that it
            was found by.
        """
        recipe = [self.scorer.scores(own, each, each.choosing[: best.count]) for each in self.sets]
        gain = objective.of_first(best.count).difference(best.scales[best.best], recipe)
        return (at(best.candidate, best.best) if gain.is_above(1) else own), gain

    def _report(self, setting: Setting, value: float, count: int) -> None:
        left = self.scorer.time_left
        time_left = "" if left is None else f", {max(0.0, left) / 60:.0f} min left"
        self._count += 1
        self._say(f"{self._count}: {setting.name}: {value:.4f} on {count} examples{time_left}")
