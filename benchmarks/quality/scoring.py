"""How well a model does on several tasks: exact answers, and the likeliest of the choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.quality.splits import split
from mergekit_spectral.demo.examples import Example, Task
from mergekit_spectral.demo.scoring import Batch, alike, answer_logits, encode, exact_match

Side = Literal["train", "validation", "test"]
Model = PreTrainedModel | PeftModel


@dataclass(frozen=True)
class TaskScore:
    """Accuracies on one side of a task, as shares of its examples.

    ``exact`` counts exact answers of greedy decoding; ``choice``, for tasks with choices, the
    examples whose answer is the likeliest choice.
    """

    task: str
    side: Side
    examples: int
    exact: float
    choice: float | None

    @property
    def accuracy(self) -> float:
        """The one figure for a task: by choice where there are choices, else exact."""
        return self.exact if self.choice is None else self.choice


def score_tasks(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Iterable[Task],
    side: Side = "test",
    count: int | None = None,
) -> list[TaskScore]:
    """Score a model on one side of each task, or on the first `count` examples of it."""
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
    """Share of examples whose answer is likelier, after the prompt, than the other choices.

    The full stop is not part of a choice here: a model that would go on otherwise may well know
    the answer.
    """
    right = 0
    for part in alike(examples, batch_size):
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
