"""A model's accuracy on several tasks: by exact answers, and by the likeliest of the choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.quality.tasks.task import END_OF_ANSWER, Example, Task, split
from mergekit_spectral.tuning.scoring import Item, Row, score

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
        exact = exact_accuracy(model, tokenizer, examples)
        choice = choice_accuracy(model, tokenizer, examples, task.choices) if task.choices else None
        scores.append(TaskScore(task.name, side, len(examples), exact, choice))
    return scores


def exact_accuracy(
    model: Model, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> float:
    """Return the share of examples that greedy decoding answers exactly, full stop included.

    An answer spelled correctly with other tokens than the tokenizer's own counts as wrong.
    """
    rows = [encode(tokenizer, each.prompt, each.answer + END_OF_ANSWER) for each in examples]
    return _accuracy(model, [Item("", (row,)) for row in rows])


def choice_accuracy(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    choices: Sequence[str],
) -> float:
    """Return the share of examples whose answer is likelier after the prompt than other choices.

    The full stop is not part of a choice: a model that continues the sentence can be right too.
    """
    items = [
        Item(
            "",
            tuple(encode(tokenizer, each.prompt, choice) for choice in choices),
            right=choices.index(each.answer),
        )
        for each in examples
    ]
    return _accuracy(model, items)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> Row:
    """Tokenize a prompt and an answer separately, so that no token is part of both.

    The tokenizer's special tokens are not added.
    """
    first, last = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)
    )
    return Row((*first, *last), len(first))


def _accuracy(model: Model, items: Sequence[Item]) -> float:
    # An adapter's layers are in the base model, which can leave out logits, unlike peft's model.
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    return fmean(bool(one.right) for one in score(plain, items))
