"""Exact-match accuracy of greedy decoding, in one forward pass per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from mergekit_spectral.demo.tasks import Example

# Greedy decoding is read up to the end of the sentence.
END_OF_ANSWER = "."
IGNORED = -100  # the label that torch's cross entropy, and with it transformers, skips


@dataclass(frozen=True)
class Batch:
    """Right-padded examples, each tensor [examples, tokens].

    ``labels`` holds the answer's tokens and `IGNORED` everywhere else.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


def encode(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> Batch:
    """Tokenize prompts and answers apart, so that no token straddles the two."""
    rows = []
    for example in examples:
        prompt = tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
        answer = tokenizer(example.answer + END_OF_ANSWER, add_special_tokens=False)["input_ids"]
        rows.append((prompt, answer))
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    shape = (len(rows), width)
    batch = Batch(
        input_ids=torch.zeros(shape, dtype=torch.long),
        attention_mask=torch.zeros(shape, dtype=torch.long),
        labels=torch.full(shape, IGNORED),
    )
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        batch.input_ids[i, :end] = torch.tensor(prompt + answer)
        batch.attention_mask[i, :end] = 1
        batch.labels[i, len(prompt) : end] = torch.tensor(answer)
    return batch


@torch.inference_mode()
def exact_match(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    batch_size: int = 50,
) -> float:
    """Share of examples that greedy decoding answers exactly, full stop included.

    Nothing is generated: decoding yields the answer's tokens if and only if, given the prompt
    and the answer so far, the most likely token is the answer's next one at every position.
    An answer spelled right with other tokens than the tokenizer's own counts as wrong.
    """
    right = 0
    for start in range(0, len(examples), batch_size):
        batch = encode(tokenizer, examples[start : start + batch_size])
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        predicted = logits[:, :-1].argmax(dim=-1)
        wanted = batch.labels[:, 1:]
        right += int(((predicted == wanted) | (wanted == IGNORED)).all(dim=1).sum())
    return right / len(examples)
