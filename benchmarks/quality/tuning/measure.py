"""Tune λ on samples of the validation examples, and score what was chosen on the test examples.

A merge's scores are made once for each λ and example, and all samples share them. So many samples
cost little more than one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import yaml
from mergekit.options import MergeOptions
from transformers import AutoTokenizer

from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.tasks.task import (
    END_OF_ANSWER,
    KeyedExample,
    Task,
    split,
    validation_examples,
)
from mergekit_spectral.checking.checks import plan_inspection
from mergekit_spectral.tuning.candidates import TunedRecipe
from mergekit_spectral.tuning.examples import DataSet, Question
from mergekit_spectral.tuning.examples import split as halves
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.record import ScoreRecord
from mergekit_spectral.tuning.scorer import BASE, Scorer, Setting, at, parent
from mergekit_spectral.tuning.scoring import Item, Score, prepare
from mergekit_spectral.tuning.search import STEP
from mergekit_spectral.tuning.sets import AnswerSet
from mergekit_spectral.tuning.tuner import Tuner

POOL = 100
"""Validation examples of a task that samples are drawn from, at most."""
GRID = tuple(float(f"{STEP**power:.3g}") for power in range(-4, 3))
"""λ of the whole grid: the scales at which a search without bounds looks first."""
LONGEST = 256

SIGNALS: Mapping[str, Callable[[Score], float]] = {
    "likelihood": lambda score: score.value,
    "log-likelihood": lambda score: float(np.log(score.value)),
    "accuracy": lambda score: float(bool(score.right)),
}
"""What a λ could be chosen by: the first is what `tune` uses."""


@dataclass(frozen=True)
class TaskItems:
    """A task's examples, ready to be scored.

    Attributes:
        data: the examples.
        pool: that samples are drawn from.
        test: that results are reported on.
    """

    data: DataSet
    pool: tuple[Item, ...]
    test: tuple[Item, ...]

    @property
    def whole(self) -> AnswerSet:
        """All examples as a set."""
        return AnswerSet(self.data.name, None, self.pool, self.test)

    def sample(self, count: int, number: int) -> list[Item]:
        """Draw examples, or all that there are. The draw depends on its arguments alone."""
        draw = random.Random(f"{self.data.name} {count} {number}")
        return draw.sample(self.pool, min(count, len(self.pool)))


class Measurement:
    """The scores of one merge, at any λ.

    Args:
        merge: what is merged.
        checkpoints: of the fine-tunes.
        folder: for the merged update and the scores; both are kept.
        say: reports progress.
    """

    def __init__(
        self, merge: Merge, checkpoints: Checkpoints, folder: Path, say: Callable[[str], None]
    ):
        self.merge = merge
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "recipe.yml"
        path.write_text(yaml.safe_dump(merge.recipe(checkpoints), sort_keys=False))
        options = Options(
            device=torch.device("cpu"),
            merge=MergeOptions(
                lora_merge_cache=str(checkpoints.copies(merge.kind)),
                lora_merge_dtype="float32",
                random_seed=merge.seed,
                copy_tokenizer=False,
                write_model_card=False,
                quiet=True,
            ),
        )
        plan = plan_inspection(path, options.merge, folder)
        self.recipe, self.options = TunedRecipe(plan.recipe), options
        self.scorer = Scorer(
            self.recipe, plan, options, folder, ScoreRecord(folder, merge.name), say
        )
        tokenizer = AutoTokenizer.from_pretrained(checkpoints.base)
        self.tasks = [task_items(TASKS[name], tokenizer) for name in merge.tasks]
        self.alone = {
            items.data.name: self._accuracy(parent(model), items)
            for model, items in zip(self.recipe.inputs, self.tasks, strict=True)
        }
        for setting in (*map(parent, self.recipe.inputs), BASE):
            for items in self.tasks:
                self.scorer.scores(setting, items.whole, items.pool)

    def setting(self, scale: float) -> Setting:
        """Return the merge at a λ."""
        return at(self.recipe.own, scale)

    def _accuracy(self, setting: Setting, items: TaskItems) -> float:
        records = self.scorer.records(setting, items.whole, items.test)
        return fmean(bool(one.right) for one in records)

    def accuracies(self, scale: float) -> dict[str, float]:
        """Return the accuracy on each task's test examples over that of its own fine-tune."""
        setting = self.setting(scale)
        return {
            items.data.name: self._accuracy(setting, items) / self.alone[items.data.name]
            for items in self.tasks
        }

    def tuned(self, count: int, number: int) -> dict[str, Any]:
        """Tune on a sample of each task's validation examples, as `tune` does.

        Args:
            count: examples of each task. One half of them chooses.
            number: of the sample.
        """
        sets = []
        for model, items in zip(self.recipe.inputs, self.tasks, strict=True):
            choosing, reporting = halves(items.sample(count, number))
            sets.append(AnswerSet(items.data.name, model, choosing, reporting))
        tuner = Tuner(
            self.recipe, [self.recipe.own], sets, self.scorer, self.options, lambda _: None
        )
        tuning, changes = tuner.run(0.0)
        scale = next((v for k, v in changes.items() if k[-1] == "lambda"), self.recipe.own_scale)
        return {
            "count": count,
            "sample": number,
            "scale": scale,
            "evaluations": len({one.scale for one in tuning.searched}),
            "accuracy": fmean(self.accuracies(scale).values()),
            "signals": {name: self._by_signal(of, sets) for name, of in SIGNALS.items()},
        }

    def _by_signal(self, of: Callable[[Score], float], sets: Sequence[AnswerSet]) -> float:
        """Return the λ of the grid at which a signal is the largest, of equals the smallest."""

        def value(scale: float) -> float:
            setting = self.setting(scale)
            return fmean(
                fmean(map(of, self.scorer.records(setting, each, each.choosing))) for each in sets
            )

        return max(GRID, key=lambda scale: (value(scale), -scale))


def task_items(task: Task, tokenizer: Any) -> TaskItems:
    """Tokenize a task's validation and test examples. Its answers end with a full stop."""
    sides = [validation_examples(task, POOL), split(task).test]
    questions = [tuple(question(task, example) for example in side) for side in sides]
    data = DataSet(task.name, Path(task.name), questions[0], len(questions[0]))
    pool, test = (tuple(prepare(data, each, tokenizer, LONGEST)) for each in questions)
    return TaskItems(data, pool, test)


def question(task: Task, example: KeyedExample) -> Question:
    """Return an example as `tune` reads it: with the choices, or with its full stop."""
    if task.choices:
        return Question(example.prompt, example.answer, task.choices)
    return Question(example.prompt, example.answer + END_OF_ANSWER)


def measure(
    measurement: Measurement, counts: Sequence[int], samples: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what was measured of one merge.

    Args:
        measurement: its scores.
        counts: numbers of examples of each task.
        samples: how many of each number.
        say: reports progress.
    """
    grid = {}
    for scale in GRID:
        grid[scale] = measurement.accuracies(scale)
        say(f"λ = {scale:g}: {fmean(grid[scale].values()):.1%}")
    draws = []
    for count in counts:
        whole = all(count >= len(items.pool) for items in measurement.tasks)
        for number in range(1 if whole else samples):
            draws.append(measurement.tuned(count, number))
            say(f"{count} examples, sample {number}: λ = {draws[-1]['scale']:g}")
    return {
        **asdict(measurement.merge),
        "pools": {items.data.name: len(items.pool) for items in measurement.tasks},
        "alone": measurement.alone,
        "grid": grid,
        "draws": draws,
    }
