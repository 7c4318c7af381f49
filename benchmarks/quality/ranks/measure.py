"""What a limit on a merged adapter's rank costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.quality.scoring import Side, TaskScore, score_tasks
from benchmarks.quality.tasks import TASKS
from mergekit_spectral.host.adapter_merge import MergedWeight, plan_adapter_merge
from mergekit_spectral.host.recipe_check import find_spectral_method


@dataclass(frozen=True)
class Adapter:
    """A merged adapter.

    Attributes:
        method: that merged it.
        rank: the limit on its rank; None if there was none.
        inputs_compressed: whether the inputs were compressed before the merge, and not the merged
            update after it.
        update_lost: mean over the weights, and maximum, of the share of the merged update's squared
            norm that it lacks.
        inputs_lost: the same for what was left out of the inputs before the merge.
        exact: share of examples that are answered exactly, by task.
        accuracy: the same, or for tasks with choices the share whose answer is the likeliest one.
    """

    method: str
    rank: int | None
    inputs_compressed: bool
    update_lost: tuple[float, float]
    inputs_lost: tuple[float, float]
    exact: Mapping[str, float]
    accuracy: Mapping[str, float]


@dataclass
class Scorer:
    """Scores adapters of one base.

    Attributes:
        model: the base, in float32.
        tokenizer: its own.
        tasks: by their names.
        side: of the tasks, from which the examples are.
        count: how many of each task.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tasks: Sequence[str]
    side: Side
    count: int

    def alone(self, task: str, adapter: Path) -> float:
        """Return the accuracy of an adapter that is not merged on one task."""
        model = PeftModel.from_pretrained(self.model, adapter)
        (found,) = self._score([task])
        model.unload()
        return found.accuracy

    def merged(
        self, recipe: Mapping[str, Any], rank: int | None, inputs_compressed: bool
    ) -> Adapter:
        """Merge a recipe into an adapter, as `mergekit-spectral adapter` does, and score it.

        Args:
            recipe: of LoRA inputs on the base.
            rank: the limit; None for none.
            inputs_compressed: whether to compress the inputs before the merge, and not the merged
                update after it, whatever the method does by default.

        Raises:
            MergeError: the merge failed.
        """
        config = MergeConfiguration.model_validate(recipe)
        method = find_spectral_method(config.merge_method)
        with patch.object(method, "compresses_inputs", inputs_compressed):
            merge = plan_adapter_merge(config, MergeOptions())
            weights = list(merge.run(rank=rank))
        with adapted(self.model, weights):
            scores = self._score(self.tasks)
        return Adapter(
            config.merge_method,
            rank,
            inputs_compressed,
            _lost([weight.compressed.kept for weight in weights]),
            _lost([weight.inputs_kept for weight in weights]),
            {each.task: each.exact for each in scores},
            {each.task: each.accuracy for each in scores},
        )

    def _score(self, tasks: Sequence[str]) -> list[TaskScore]:
        chosen = [TASKS[task] for task in tasks]
        return score_tasks(self.model, self.tokenizer, chosen, self.side, self.count)


@contextmanager
def adapted(model: PreTrainedModel, weights: Sequence[MergedWeight]) -> Iterator[None]:
    """Add the updates to a model's weights within the context."""
    before: dict[Tensor, Tensor] = {}
    try:
        with torch.no_grad():
            for weight in weights:
                parameter = model.get_submodule(weight.module).weight
                assert isinstance(parameter, Tensor)
                before.setdefault(parameter, parameter.clone())
                parameter.add_(weight.compressed.delta.to_dense().to(parameter.dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)


def _lost(kept: Sequence[float]) -> tuple[float, float]:
    losses = [max(0.0, 1 - share) for share in kept]
    return fmean(losses), max(losses)
