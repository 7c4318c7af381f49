"""Examples, and exact-match accuracy of greedy decoding, in one forward pass per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Greedy decoding is read up to the end of the sentence.
END_OF_ANSWER = "."
IGNORED = -100  # the label that torch's cross entropy skips

E = TypeVar("E", bound="Example")


@dataclass(frozen=True)
class Example:
    """One question and its answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Batch:
    """Right-padded examples.

    Attention is causal, so padding needs no mask.

    Attributes:
        input_ids: int64 [examples, tokens]; the prompts and the answers but for their last tokens.
        labels: int64 [examples, tokens]; the next token of the answer where ``input_ids`` ends with
            the prompt or a part of the answer, and `IGNORED` everywhere else.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor

    @property
    def answers(self) -> torch.Tensor:
        """Where the answers' tokens are predicted, bool [examples, tokens]."""
        return self.labels != IGNORED

    @property
    def wanted(self) -> torch.Tensor:
        """All answers' tokens one after the other, int64 [answer tokens]."""
        return self.labels[self.answers]

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return Batch(self.input_ids.to(device), self.labels.to(device))


def encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], end: str = END_OF_ANSWER
) -> Batch:
    """Tokenize prompts and answers separately, so that no token is part of both.

    Args:
        tokenizer: the model's; its special tokens are not added.
        examples: one row each.
        end: what follows every answer.
    """
    rows = []
    for example in examples:
        prompt = tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer(example.answer + end, add_special_tokens=False)["input_ids"]
        rows.append((prompt, answer))
    width = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    batch = Batch(
        input_ids=torch.zeros(len(rows), width, dtype=torch.long),
        labels=torch.full((len(rows), width), IGNORED),
    )
    for i, (prompt, answer) in enumerate(rows):
        start, stop = len(prompt) - 1, len(prompt) + len(answer) - 1
        batch.input_ids[i, :stop] = torch.tensor(prompt + answer[:-1])
        batch.labels[i, start:stop] = torch.tensor(answer)
    return batch


def answer_logits(model: PreTrainedModel | PeftModel, batch: Batch) -> torch.Tensor:
    """Return the logits at the positions of ``batch.wanted``: [answer tokens, vocabulary].

    The language model head runs at these positions only: in a small model with a large vocabulary
    it costs more than all layers.
    """
    # Rows with the same tokens, such as choices of one token each, share a forward pass.
    distinct, row = torch.unique(batch.input_ids, dim=0, return_inverse=True)
    hidden = model.get_decoder()(input_ids=distinct, use_cache=False).last_hidden_state
    logits: torch.Tensor = model.get_output_embeddings()(hidden[row][batch.answers])
    return logits


def by_length(examples: Sequence[E], size: int) -> Iterator[Sequence[E]]:
    """Yield the examples in groups of up to `size` with similar lengths, which saves padding."""
    ordered = sorted(examples, key=lambda example: len(example.prompt) + len(example.answer))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


@torch.inference_mode()
def exact_match(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    batch_size: int = 50,
) -> float:
    """Return the share of examples that greedy decoding answers exactly, full stop included.

    Nothing is generated: decoding yields the answer's tokens if and only if, given the prompt
    and the answer so far, the most likely token is the answer's next one at every position.
    An answer spelled correctly with other tokens than the tokenizer's own counts as wrong.
    """
    right = 0
    for part in by_length(examples, batch_size):
        batch = encode(tokenizer, part).to(model.device)
        said = batch.labels.clone()
        said[batch.answers] = answer_logits(model, batch).argmax(dim=-1)
        right += int((said == batch.labels).all(dim=1).sum())
    return right / len(examples)
