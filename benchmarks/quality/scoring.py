"""A model's accuracy on several tasks: by exact answers, and by the likeliest of the choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.quality.tasks.task import Task, split
from mergekit_spectral.demo.scoring import (
    Batch,
    Example,
    answer_logits,
    by_length,
    encode,
    exact_match,
)

Side = Literal["train", "validation", "test"]
Model = PreTrainedModel | PeftModel


@dataclass(frozen=True)
class TaskScore:
    """Accuracies on one side of a task.

    Attributes:
        task: name of the task.
        side: side of the task that the examples are from.
        examples: number of examples.
        exact: share of examples that greedy decoding answers exactly.
        choice: share of examples whose answer is the likeliest choice; None without choices.
    """

    task: str
    side: Side
    examples: int
    exact: float
    choice: float | None

    @property
    def accuracy(self) -> float:
        """Accuracy by choice for a task with choices, else exact accuracy."""
        return self.exact if self.choice is None else self.choice


def score_tasks(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Iterable[Task],
    side: Side = "test",
    count: int | None = None,
) -> list[TaskScore]:
    """Score a model on one side of each task, or on that side's first `count` examples."""
    scores = []
    for task in tasks:
        examples = getattr(split(task), side)[:count]
        exact = exact_match(model, tokenizer, examples)
        choice = choice_accuracy(model, tokenizer, examples, task.choices) if task.choices else None
        scores.append(TaskScore(task.name, side, len(examples), exact, choice))
    return scores


@torch.inference_mode()
def choice_accuracy(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    choices: Sequence[str],
    batch_size: int = 50,
) -> float:
    """Return the share of examples whose answer is likelier after the prompt than other choices.

    The full stop is not part of a choice: a model that continues the sentence can be right too.
    """
    right = 0
    for part in by_length(examples, batch_size):
        rows = [replace(example, answer=choice) for example in part for choice in choices]
        batch = encode(tokenizer, rows, end="").to(model.device)
        chosen = answer_log_likelihoods(model, batch).view(len(part), len(choices)).argmax(dim=1)
        right += sum(
            choices[i] == example.answer for i, example in zip(chosen.tolist(), part, strict=True)
        )
    return right / len(examples)


def answer_log_likelihoods(model: Model, batch: Batch) -> torch.Tensor:
    """Return the sum of the log-probabilities of each answer's tokens: [examples]."""
    log_probabilities = answer_logits(model, batch).float().log_softmax(dim=-1)
    tokens = torch.zeros(batch.labels.shape, device=batch.labels.device)
    tokens[batch.answers] = log_probabilities.gather(1, batch.wanted[:, None])[:, 0]
    return tokens.sum(dim=1)
