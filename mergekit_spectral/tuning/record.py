"""Scores on disk, so that a tuning that was stopped continues where it was.

A search depends on nothing but its scores. Started again with the same recipe, models and examples,
it asks for the same scores in the same order, and finds those that it had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning.scoring import Score
from mergekit_spectral.whole_files import errors_as_sentences, move_up, unfinished

NAME = "scores.jsonl"

Scores = dict[str, Score]
"""A model's scores by the digests of the examples."""


class Record:
    """A file with one line for each time that a model was scored.

    Every line includes the fingerprint of its tuning. Lines with other fingerprints, and damaged or
    incomplete ones, are left out.

    Args:
        folder: of the file.
        fingerprint: of the recipe, the models, the program, and how they are scored.

    Raises:
        MergeError: the file cannot be read or written.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self._path = folder / NAME
        self._fingerprint = fingerprint
        self._scores: dict[str, Scores] = {}
        with errors_as_sentences(folder):
            if self._path.exists() and not self._path.is_file():
                raise MergeError(
                    f"{self._path} is not a file, so scores cannot be recorded in it; remove it, "
                    "or give another folder with --out."
                )
            lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
            for line in lines:
                self._read(line)
            with unfinished(folder) as new:
                kept = (self._line(model, scores) for model, scores in self._scores.items())
                (new / NAME).write_text("".join(kept))
                move_up(new, [NAME])

    def of(self, model: str) -> Mapping[str, Score]:
        """Return a model's recorded scores.

        Args:
            model: what was scored, as a candidate and its scale.
        """
        return self._scores.get(model, {})

    def add(self, model: str, scores: Scores) -> None:
        """Record scores of a model.

        Raises:
            MergeError: the file cannot be written.
        """
        self._scores.setdefault(model, {}).update(scores)
        with errors_as_sentences(self._path.parent), self._path.open("a") as file:
            file.write(self._line(model, scores))

    def _line(self, model: str, scores: Scores) -> str:
        values = {
            digest: [score.log_likelihood, score.exact, score.choice]
            for digest, score in scores.items()
        }
        return json.dumps([self._fingerprint, model, values]) + "\n"

    def _read(self, line: bytes) -> None:
        try:
            fingerprint, model, values = _LINE.validate_json(line)
        except ValueError:
            return
        if fingerprint == self._fingerprint:
            own = self._scores.setdefault(model, {})
            own.update((digest, Score(*value)) for digest, value in values.items())


_LINE = TypeAdapter(tuple[str, str, dict[str, tuple[float, bool | None, bool | None]]])
