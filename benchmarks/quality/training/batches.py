"""Batches to train on, and the logits that their loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from mergekit_spectral.tuning.scoring import Row

IGNORED = -100  # the label that torch's cross entropy skips


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    Attention is causal, so padding needs no mask.

    Attributes:
        input_ids: int64 [rows, tokens]; the prompts and the answers but for their last tokens.
        labels: int64 [rows, tokens]; the next token of the answer where ``input_ids`` ends with
            the prompt or a part of the answer, and `IGNORED` everywhere else.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Batch:
        """Pad rows to the length of the longest."""
        width = max(len(row.tokens) for row in rows) - 1
        input_ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full((len(rows), width), IGNORED)
        for i, row in enumerate(rows):
            stop = len(row.tokens) - 1
            input_ids[i, :stop] = torch.tensor(row.tokens[:-1])
            labels[i, row.start - 1 : stop] = torch.tensor(row.tokens[row.start :])
        return cls(input_ids, labels)

    @property
    def answers(self) -> torch.Tensor:
        """Where the answers' tokens are predicted, bool [rows, tokens]."""
        return self.labels != IGNORED

    @property
    def wanted(self) -> torch.Tensor:
        """All answers' tokens one after the other, int64 [answer tokens]."""
        return self.labels[self.answers]

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to a device."""
        return Batch(self.input_ids.to(device), self.labels.to(device))


def answer_logits(model: PreTrainedModel | PeftModel, batch: Batch) -> torch.Tensor:
    """Return the logits at the positions of ``batch.wanted``: [answer tokens, vocabulary].

    The language model head runs at these positions only: in a small model with a large vocabulary
    it costs more than all layers.
    """
    hidden = model.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    logits: torch.Tensor = model.get_output_embeddings()(hidden[batch.answers])
    return logits
