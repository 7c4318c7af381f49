"""Which setting is taken, and whether it is better than another by more than chance.

A setting's value is made of its scores on the examples of several data sets. Differences between
settings are measured on the same examples, and their standard errors by resampling the examples of
each set (bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Kind = Literal["mean", "worst", "normalized"]

RESAMPLES = 1000


@dataclass(frozen=True)
class Difference:
    """A difference between two settings, with its standard error."""

    mean: float
    error: float

    def is_above(self, errors: float) -> bool:
        """Whether it is above zero by more than a number of standard errors."""
        return self.mean > errors * self.error


@dataclass(frozen=True)
class Part:
    """What one set contributes to the value of a setting.

    Attributes:
        size: number of examples.
        of_mean: gives the set's value from its mean score.
        reference: the value that counts as 1. None counts values as they are.
        weight: of the set in a mean of the sets.
    """

    size: int
    of_mean: Callable[[float | Values], Values] = np.asarray
    reference: float | None = None
    weight: float = 1.0


class Objective:
    """The value of a setting: the weighted mean of its sets, or the worst of them.

    Args:
        parts: the sets.
        kind: of value. A normalized one is a mean, with a reference for each set.
        seed: of the resampling.
    """

    def __init__(self, parts: Sequence[Part], kind: Kind, seed: int = 0):
        self._parts, self._kind, self._seed = parts, kind, seed
        draw = np.random.default_rng(seed)
        self._counts = [
            draw.multinomial(part.size, np.full(part.size, 1 / part.size), RESAMPLES) / part.size
            for part in parts
        ]

    def of_first(self, count: int) -> Objective:
        """Return the objective on the first examples of each set."""
        parts = [replace(part, size=min(count, part.size)) for part in self._parts]
        return Objective(parts, self._kind, self._seed)

    def of_kind(self, kind: Kind) -> Objective:
        """Return the objective that combines the same sets in another way."""
        other = copy(self)  # with the same draws
        other._kind = kind
        return other

    def value(self, scores: Sequence[Values]) -> float:
        """Return the value of a setting from its scores, one array [examples] for each set."""
        return float(self._combined(self.of_sets([each.mean() for each in scores])))

    def of_sets(self, means: Sequence[float | Values]) -> list[Values]:
        """Return the sets' values from their mean scores."""
        return [
            part.of_mean(mean) / (part.reference or 1.0)
            for part, mean in zip(self._parts, means, strict=True)
        ]

    def sets_with_errors(self, scores: Sequence[Values]) -> tuple[list[float], list[float]]:
        """Return the sets' values, not divided by references, and their standard errors."""
        together = list(zip(self._parts, self._counts, scores, strict=True))
        values = [float(part.of_mean(each.mean())) for part, _, each in together]
        errors = [float(part.of_mean(count @ each).std()) for part, count, each in together]
        return values, errors

    def error(self, scores: Sequence[Values]) -> float:
        """Return the standard error of a setting's value."""
        return float(self._resampled(scores).std())

    def difference(self, scores: Sequence[Values], others: Sequence[Values]) -> Difference:
        """Return by how much the first setting's value is above the second's."""
        resampled = self._resampled(scores) - self._resampled(others)
        return Difference(self.value(scores) - self.value(others), float(resampled.std()))

    def _resampled(self, scores: Sequence[Values]) -> Values:
        means = [count @ each for count, each in zip(self._counts, scores, strict=True)]
        return self._combined(self.of_sets(means))

    def _combined(self, of_sets: Sequence[Values]) -> Values:
        stacked = np.stack(of_sets)
        combined: Values = (
            stacked.min(0)
            if self._kind == "worst"
            else np.average(stacked, 0, [part.weight for part in self._parts])
        )
        return combined
