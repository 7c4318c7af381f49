"""Data sets whose answers a tiny model gives itself, so that its own accuracy is 100%."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from support.checkpoints import LETTERS, VOCABULARY
from transformers import PreTrainedModel


@torch.no_grad()
def write_answers(path: Path, model: PreTrainedModel, count: int = 12, length: int = 2) -> Path:
    """Write prompts of random letters, and what the model continues them with.

    Args:
        path: of the ``.jsonl`` file.
        model: with the vocabulary of `checkpoints.VOCABULARY`.
        count: number of examples.
        length: of an answer, in tokens that are letters.
    """
    draw = random.Random(path.stem)
    letters = [VOCABULARY.index(letter) for letter in LETTERS]
    with path.open("w") as file:
        for _ in range(count):
            tokens = draw.choices(letters, k=draw.randint(3, 9))
            prompt = list(tokens)
            for _ in range(length):
                logits = model(torch.tensor([tokens])).logits[0, -1]
                tokens.append(letters[int(logits[letters].argmax())])
            record = {
                "prompt": "".join(VOCABULARY[token] for token in prompt),
                "answer": "".join(VOCABULARY[token] for token in tokens[len(prompt) :]),
            }
            file.write(json.dumps(record) + "\n")
    return path
