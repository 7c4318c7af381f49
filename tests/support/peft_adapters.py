"""Write adapters of small modules with peft, and compute their updates with peft."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mergekit_spectral.host.structure import ModelStructure


class Toy(nn.Module):
    """A module with one layer of every kind that LoRA adapts by a product of factors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 10)
        self.square = nn.Linear(8, 8, bias=False)
        self.turned = Conv1D(10, 6)  # [in, out], 6 to 10
        self.tokens = nn.Embedding(12, 5)
        self.image = nn.Conv2d(3, 7, kernel_size=(2, 3))
        self.block = nn.ModuleDict({"linear": nn.Linear(6, 4)})


def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def structure() -> ModelStructure:
    return ModelStructure(Toy)


def write(
    folder: Path,
    targets: list[str],
    seed: int = 1,
    dtype: torch.dtype = torch.float64,
    **config: Any,
) -> dict[str, Tensor]:
    """Save an adapter on `toy()` with random factors.

    Returns:
        The update of each weight that peft computes, in `dtype`.
    """
    base = toy().to(dtype)
    settings = {"target_modules": targets, "init_lora_weights": False, **config}
    adapted = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight))
    adapted.save_pretrained(folder)
    # Read from disk: the first matching alpha pattern is used, and saving changes their order.
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
    before, after = base.state_dict(), again.merge_and_unload().state_dict()
    return {name: after[name] - weight for name, weight in before.items()}
