"""Scores on disk, so that a tuning that was stopped continues where it was.

A search depends on nothing but its scores. Started again with the same recipe, models and examples,
it asks for the same scores in the same order, and finds those that it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from mergekit_spectral.tuning.scoring import Score
from mergekit_spectral.whole_files import Record

NAME = "scores.jsonl"


@dataclass(frozen=True)
class ScoredModel:
    """Scores of one model, which are one line of the record.

    Attributes:
        model: what was scored, as a candidate and its scale.
        scores: by the digests of the examples.
    """

    model: str
    scores: dict[str, Score]


class ScoreRecord:
    """The scores of all models, on disk.

    Args:
        folder: of the file.
        fingerprint: of the recipe, the models, the program, and how they are scored.

    Raises:
        MergeError: the file cannot be read or written.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self._record = Record(folder / NAME, fingerprint, _LINE, "the tuning")
        self._scores: dict[str, dict[str, Score]] = {}
        for step in self._record.steps:
            self._scores.setdefault(step.model, {}).update(step.scores)

    def of(self, model: str) -> Mapping[str, Score]:
        """Return a model's recorded scores by the digests of the examples."""
        return self._scores.get(model, {})

    def add(self, model: str, scores: dict[str, Score]) -> None:
        """Record scores of a model.

        Raises:
            MergeError: the file cannot be written.
        """
        self._scores.setdefault(model, {}).update(scores)
        self._record.add(ScoredModel(model, scores))


_LINE = TypeAdapter(tuple[str, ScoredModel])
