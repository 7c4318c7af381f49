"""A merged model at any λ."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


class ScaledMerge:
    """base + λ·(merged − base), for a model that was merged with λ = 1.

    Every method here ends in base + λ·Δ, where Δ does not depend on λ: one merge serves all λ. It
    is exact but for the rounding of float32.

    Args:
        base: the folder of the base, which has the tokenizer.
        merged: the folder of the merged model, in float32.
        device: of the models.
    """

    def __init__(self, base: Path, merged: Path, device: str = "cpu"):
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
        self._model = _load(merged, device)
        self._base = _load(base, device).state_dict()
        # Tied weights are one tensor under two names.
        state = self._model.state_dict()
        names = {tensor.data_ptr(): name for name, tensor in state.items()}
        self._weights = {name: state[name] for name in names.values()}
        self._deltas = {name: state[name] - self._base[name] for name in self._weights}

    @torch.no_grad()
    def at(self, scale: float) -> PreTrainedModel:
        """Return the model at λ = `scale`; the next call changes it."""
        for name, weight in self._weights.items():
            torch.add(self._base[name], self._deltas[name], alpha=scale, out=weight)
        return self._model


def _load(folder: Path, device: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=device
    )
    return model
