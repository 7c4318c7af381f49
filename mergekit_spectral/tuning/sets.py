"""Data sets, ready to be scored.

Answers, texts and tasks of lm-eval are sets of items. A set scores its items, and says what the
mean of their scores amounts to. `lm_eval_tasks` has the third kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
from mergekit.common import ModelReference
from torch import nn

from mergekit_spectral.tuning.choice import Values
from mergekit_spectral.tuning.scoring import Item, Score, score

LIKELIHOOD, PERPLEXITY = "likelihood", "1 / perplexity"
"""Metrics of answers and of texts."""


class HasScore(Protocol):
    """What a model gets one score on."""

    @property
    def digest(self) -> str:
        """A hash of all that the score depends on, except the model, in hexadecimal."""

    @property
    def cut(self) -> bool:
        """Whether it is longer than what the model reads of it."""


ItemT = TypeVar("ItemT", bound=HasScore)


@dataclass(frozen=True)
class ScoredSet(ABC, Generic[ItemT]):
    """A data set, ready to be scored.

    Attributes:
        name: for tables.
        input: the input that was trained for it, if that is known.
        choosing: items that settings are chosen by, in the order of their hashes.
        reporting: items that are reported on.
        metric: what the set's value is called.
        weight: in the mean of the sets.
    """

    name: str
    input: ModelReference | None
    choosing: tuple[ItemT, ...]
    reporting: tuple[ItemT, ...]
    metric: str = LIKELIHOOD
    weight: float = 1.0

    is_relative: ClassVar[bool] = False
    """Whether values of different sets can be compared only as shares of the base's."""

    @abstractmethod
    def score(self, model: nn.Module, items: Sequence[ItemT]) -> list[Score]:
        """Score items, in their order.

        Raises:
            MergeError: a score is not a finite number, or the items cannot be scored.
        """

    def of_mean(self, mean: float | Values) -> Values:
        """Return the set's value from the mean of its items' scores."""
        return np.asarray(mean)

    def items(self, reporting: bool) -> tuple[ItemT, ...]:
        """Return the items of one half."""
        return self.reporting if reporting else self.choosing


@dataclass(frozen=True)
class AnswerSet(ScoredSet[Item]):
    """Questions and conversations with answers, or with choices."""

    def score(self, model: nn.Module, items: Sequence[Item]) -> list[Score]:
        return score(model, items)


@dataclass(frozen=True)
class TextSet(AnswerSet):
    """Windows of texts."""

    metric: str = PERPLEXITY

    is_relative = True

    def of_mean(self, mean: float | Values) -> Values:
        return np.exp(mean)


def metric_name(metric: str) -> str:
    """Return what readers call a metric: without lm-eval's name for having no filter."""
    return metric.removesuffix(",none")


def is_task(metric: str) -> bool:
    """Return whether a metric is one of a task, and not of answers or texts."""
    return metric not in (LIKELIHOOD, PERPLEXITY)
