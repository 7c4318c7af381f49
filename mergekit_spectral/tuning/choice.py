"""Which setting is taken, and whether it is better than another by more than chance.

A setting's value is made of its scores on the examples of several data sets. Differences between
settings are measured on the same examples, and their standard errors by resampling the examples of
each set (bootstrap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


class Objective:
    """The value of a setting: the mean of its sets, or the worst of them.

    Args:
        sizes: number of examples of each set.
        texts: by set, whether it is text. The value of a text set is 1 / perplexity, the
            exponential of its mean score; that of the others is their mean score.
        references: by set, the value that counts as 1. None counts values as they are.
        kind: of value. A normalized one is a mean, with a reference for each set.
        seed: of the resampling.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        texts: Sequence[bool],
        references: Sequence[float | None],
        kind: Kind,
        seed: int = 0,
    ):
        self._sizes, self._texts, self._references = sizes, texts, references
        self._kind, self._seed = kind, seed
        draw = np.random.default_rng(seed)
        self._counts = [
            draw.multinomial(size, np.full(size, 1 / size), RESAMPLES) / size for size in sizes
        ]

    def of_first(self, count: int) -> Objective:
        """Return the objective on the first examples of each set."""
        sizes = [min(count, size) for size in self._sizes]
        return Objective(sizes, self._texts, self._references, self._kind, self._seed)

    def value(self, scores: Sequence[Values]) -> float:
        """Return the value of a setting from its scores, one array [examples] for each set."""
        return float(self._combined(self.of_sets([each.mean() for each in scores])))

    def of_sets(self, means: Sequence[float | Values]) -> list[Values]:
        """Return the sets' values from their mean scores."""
        return [
            of_set(mean, text) / (reference or 1.0)
            for mean, text, reference in zip(means, self._texts, self._references, strict=True)
        ]

    def sets_with_errors(self, scores: Sequence[Values]) -> tuple[list[float], list[float]]:
        """Return the sets' values, not divided by references, and their standard errors."""
        values = [
            float(of_set(each.mean(), text)) for each, text in zip(scores, self._texts, strict=True)
        ]
        errors = [
            float(of_set(count @ each, text).std())
            for count, each, text in zip(self._counts, scores, self._texts, strict=True)
        ]
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
        combined: Values = stacked.min(0) if self._kind == "worst" else stacked.mean(0)
        return combined


def of_set(mean: float | Values, text: bool) -> Values:
    """Return a set's value from its mean score, before it is divided by a reference."""
    return np.exp(mean) if text else np.asarray(mean)
