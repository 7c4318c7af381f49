"""What fine-tuning changed in single weights, out of the checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.training.settings import Kind
from mergekit_spectral.adapters.adapter_files import find_adapter
from mergekit_spectral.adapters.lora import LoraAdapter, Product
from mergekit_spectral.spectral import Delta, DenseDelta, FactoredDelta

PROJECTIONS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")


def analysed_weights(checkpoints: Checkpoints) -> Iterator[str]:
    """Return the names of four projections in the first, the middle and the last layer."""
    layers = json.loads((checkpoints.base / "config.json").read_text())["num_hidden_layers"]
    for layer in sorted({0, layers // 2, layers - 1}):
        for projection in PROJECTIONS:
            yield f"model.layers.{layer}.{projection}.weight"


def updates(checkpoints: Checkpoints, kind: Kind, tasks: Sequence[str], weight: str) -> list[Delta]:
    """Return each fine-tune's delta of one weight, in float32; in factors for adapters."""
    if kind == "lora":
        adapters = (LoraAdapter(find_adapter(str(checkpoints.path(kind, t)))) for t in tasks)
        return [adapter_update(adapter, weight) for adapter in adapters]
    base = _tensor(checkpoints.base, weight).float()
    return [DenseDelta(_tensor(checkpoints.path(kind, task), weight), base) for task in tasks]


def adapter_update(adapter: LoraAdapter, weight: str) -> FactoredDelta:
    """Return what an adapter does to one weight."""
    update = adapter.updates[weight]
    assert isinstance(update, Product)
    B, A = adapter.factors(weight)
    return FactoredDelta(update.scale * B, A)


def _tensor(folder: Path, weight: str) -> Tensor:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        tensor: Tensor = file.get_tensor(weight)
        return tensor
