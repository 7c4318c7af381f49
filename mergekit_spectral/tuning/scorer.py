"""Scores settings on examples: each once, with as few models in memory as possible."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from mergekit.common import ModelReference
from peft import PeftModel
from torch import nn

from mergekit_spectral.host.models import OpenedModel
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.tuning.candidates import Candidate, TunedRecipe
from mergekit_spectral.tuning.choice import Values
from mergekit_spectral.tuning.models import ScaledModel, load_model, parameters
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.record import ScoreRecord
from mergekit_spectral.tuning.scoring import Score
from mergekit_spectral.tuning.search import OutOfTimeError
from mergekit_spectral.tuning.sets import ItemT, ScoredSet
from mergekit_spectral.tuning.updates import (
    Update,
    make_adapter,
    make_difference,
    plan_adapter,
)

Say = Callable[[str], None]
"""Reports progress, a sentence at a time."""


@dataclass(frozen=True)
class Setting:
    """What is scored: the base, an input alone, or a candidate at a scale."""

    name: str
    candidate: Candidate | None = None
    scale: float = 0.0
    parent: ModelReference | None = None

    @property
    def key(self) -> str:
        """What it is called in the record."""
        if self.candidate is None:
            return self.name
        return f"{self.candidate.name} {self.scale:.6g}"


def at(candidate: Candidate, scale: float) -> Setting:
    """Return a candidate at a scale."""
    return Setting(f"{candidate} at λ = {scale:g}", candidate, scale)


def parent(model: ModelReference) -> Setting:
    """Return an input alone."""
    return Setting(str(model), parent=model)


BASE = Setting("base")


class Scorer:
    """Scores settings on items, and records the scores.

    Full inputs are loaded before the base is, and released. Then the base stays in memory, and
    updates are added to it.
    """

    def __init__(
        self,
        recipe: TunedRecipe,
        plan: PlannedMerge,
        options: Options,
        work: Path,
        record: ScoreRecord,
        say: Say,
    ):
        self._recipe, self._plan, self._options = recipe, plan, options
        self._work, self._record, self._say = work, record, say
        self._scaled: ScaledModel | None = None
        self._updates: dict[Candidate, Update] = {}
        self._end: float | None = None
        self._seconds_per_item: dict[str, float] = {}

    def start_budget(self) -> None:
        """Count the time that the options allow from now on."""
        if self._options.budget is not None:
            self._end = time.monotonic() + self._options.budget

    def scores(
        self,
        setting: Setting,
        data: ScoredSet[ItemT],
        items: Sequence[ItemT],
        within_budget: bool = False,
    ) -> Values:
        """Return the values of a setting's scores, [items].

        Args:
            setting: what is scored.
            data: a data set.
            items: of that set.
            within_budget: whether to raise an error rather than to exceed the budget.

        Raises:
            OutOfTimeError: the budget does not suffice.
            MergeError: the merge fails, or a model cannot be loaded or scored.
        """
        found = self.records(setting, data, items, within_budget)
        return np.array([each.value for each in found])

    def records(
        self,
        setting: Setting,
        data: ScoredSet[ItemT],
        items: Sequence[ItemT],
        within_budget: bool = False,
    ) -> list[Score]:
        """Return the scores of items; as `scores`."""
        known = self._record.of(setting.key)
        missing = [item for item in items if item.digest not in known]
        if missing:
            if within_budget:
                self._require_time(len(missing) * self._seconds_per_item.get(data.name, 0.0))
            model = self._model(setting)
            start = time.monotonic()
            scores = data.score(model, missing)
            self._seconds_per_item[data.name] = (time.monotonic() - start) / len(missing)
            self._record.add(
                setting.key, {item.digest: s for item, s in zip(missing, scores, strict=True)}
            )
        known = self._record.of(setting.key)
        return [known[item.digest] for item in items]

    @property
    def time_left(self) -> float | None:
        """Seconds of the budget that are left; None without one, or if it has not started."""
        return None if self._end is None else self._end - time.monotonic()

    def _require_time(self, seconds: float) -> None:
        left = self.time_left
        if left is not None and left < seconds:
            raise OutOfTimeError

    def _model(self, setting: Setting) -> nn.Module:
        if setting.parent is not None:
            return self._parent(self._plan.models[setting.parent])
        if setting.candidate is None:
            return self._base().base()
        update = self._update(setting.candidate)
        return self._base().at(update, setting.scale)

    def _base(self) -> ScaledModel:
        if self._scaled is None:
            options = self._options
            self._scaled = ScaledModel(
                self._plan.models[self._recipe.base].checkpoint.folder,
                self._work,
                options.dtype,
                options.device,
                options.merge.trust_remote_code,
            )
        return self._scaled

    def _parent(self, model: OpenedModel) -> nn.Module:
        if model.adapter_files is not None and model.reference.model == self._recipe.base.model:
            return self._base().with_adapter(model.adapter_files.weights.parent)
        options = self._options
        self._release()
        loaded = load_model(
            model.checkpoint.folder,
            options.dtype,
            options.device,
            options.merge.trust_remote_code,
        )
        if model.adapter_files is None:
            return loaded
        # peft puts the adapter's layers into the model itself.
        PeftModel.from_pretrained(loaded, str(model.adapter_files.weights.parent)).eval()
        return loaded

    def _release(self) -> None:
        self._scaled = None
        gc.collect()

    def _update(self, candidate: Candidate) -> Update:
        if candidate not in self._updates:
            self._updates[candidate] = self._make_update(candidate)
        return self._updates[candidate]

    def _make_update(self, candidate: Candidate) -> Update:
        config, folder = self._recipe.config(candidate), self._work / candidate.name
        options = self._options.merge
        if not folder.exists():
            self._say(f"merging {candidate}")
        if merge := plan_adapter(config, options):
            return make_adapter(merge, self._options.seed, folder)
        if not folder.exists():
            self._release()  # the difference passes through a whole model
        return make_difference(
            config,
            self._plan,
            self._recipe.base,
            options,
            self._options.dtype,
            folder,
            partial(
                parameters,
                dtype=self._options.dtype,
                trust_remote_code=options.trust_remote_code,
            ),
        )
