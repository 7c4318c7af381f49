"""Merge and run adapters with peft, to compare scales, patterns and transpositions with it."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
import transformers
from support.expected import Weights
from transformers import PreTrainedModel


def merged_by_peft(base: Path, adapter: Path) -> Weights:
    """Merge an adapter into its base with peft, in float64."""
    merged: Weights = _adapted(base, adapter).merge_and_unload().state_dict()
    return merged


def logits_by_peft(base: Path, adapter: Path) -> torch.Tensor:
    """Run a base with an adapter that is not merged into it, in float64."""
    return _logits(_adapted(base, adapter))


def logits(folder: Path) -> torch.Tensor:
    """Run a checkpoint in float64."""
    return _logits(_loaded(folder))


def _adapted(base: Path, adapter: Path) -> peft.PeftModel:
    return peft.PeftModel.from_pretrained(_loaded(base), adapter)


def _loaded(folder: Path) -> PreTrainedModel:
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    return model_class.from_pretrained(folder, dtype=torch.float64)


def _logits(model: torch.nn.Module) -> torch.Tensor:
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        return model.eval()(tokens).logits
