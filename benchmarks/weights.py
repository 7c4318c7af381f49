"""Weights to merge: a base and its fine-tunes, the same in every process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from mergekit.merge_methods.base import TensorGroup
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor

Shape = tuple[int, int]
SETS: dict[str, list[Shape]] = {
    "tiny": [(128, 128)],
    "small": [(1024, 1024), (2048, 2048), (2048, 5632)],
    # q and o; k and v; gate and up; down. The two models' weights have the same shapes.
    "llama-8b": [(4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)],
    "mistral-7b": [(4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)],
}
BASE = "base"
BASE_STD = 0.02
UPDATE_STD = 1e-2 * BASE_STD


def dense_group(shape: Shape, inputs: int, dtype: torch.dtype, device: str) -> TensorGroup:
    """Make a base and full fine-tunes."""
    base = _base(shape)
    return _group(base, [base + update(shape, seed) for seed in _seeds(inputs)], dtype, device)


def lora_group(
    shape: Shape, inputs: int, rank: int, dtype: torch.dtype, device: str, merged: bool
) -> TensorGroup:
    """Make a base and adapters on it.

    Args:
        shape: [out, in].
        inputs: how many adapters.
        rank: of each.
        dtype: of the weights and of the adapters' factors.
        device: where all of it lies.
        merged: whether the inputs are weights with the adapters added, as mergekit's own methods
            take them, or stay in factors, as ours do.
    """
    base = _base(shape).to(device=device, dtype=dtype)
    adapted = [_adapted(base, rank, seed) for seed in _seeds(inputs)]
    tensors = [tensor.to_dense() if merged else tensor for tensor in adapted]
    return _group(base, tensors, dtype, device)


def update(shape: Shape, seed: int) -> Tensor:
    """Make what fine-tuning adds to a weight: a slowly falling spectrum of low rank, and noise.

    Args:
        shape: [out, in].
        seed: each gives another update.
    """
    normal = _normal(seed)
    rank = max(2, min(shape) // 16)
    falling = torch.arange(1, rank + 1) ** -0.5
    B, A = normal((shape[0], rank)), normal((rank, shape[1]))
    low: Tensor = (B * (falling / falling.norm())) @ A
    return low.add_(normal(shape), alpha=0.2).mul_(UPDATE_STD)


def in_float32(group: TensorGroup) -> TensorGroup:
    """Return the same values in float32, where the merged delta hardly feels the last rounding."""
    entries = [replace(entry, tensor=entry.tensor.float()) for entry in group.entries]
    return TensorGroup(tuple(entries), group.metadata)


def exact_deltas(group: TensorGroup) -> list[Tensor]:
    """Return the inputs' differences to the base in float64; an adapter's is its update alone."""
    assert group.base is not None
    base = _double(group.base.tensor)
    deltas = []
    for entry in group.non_base:
        if isinstance(entry.tensor, AdaptedTensor):
            B, A = map(_double, entry.tensor.update)
            deltas.append(entry.tensor.scale * B @ A)
        else:
            deltas.append(_double(entry.tensor) - base)
    return deltas


def _double(tensor: Tensor) -> Tensor:
    # MPS has no float64.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _group(base: Tensor, tensors: list[Tensor], dtype: torch.dtype, device: str) -> TensorGroup:
    ids = [BASE, *(f"input-{number}" for number in range(len(tensors)))]
    everything = [tensor.to(device=device, dtype=dtype) for tensor in (base, *tensors)]
    return TensorGroup.from_tensors(everything, ids=ids, base_index=0, name="weight")


def _base(shape: Shape) -> Tensor:
    normal = _normal(0)
    return normal(shape).mul_(BASE_STD)


def _adapted(base: Tensor, rank: int, seed: int) -> AdaptedTensor:
    normal = _normal(seed)
    B = normal((base.shape[0], rank)) * (UPDATE_STD / rank**0.5)
    A = normal((rank, base.shape[1]))
    B, A = (factor.to(device=base.device, dtype=base.dtype) for factor in (B, A))
    return AdaptedTensor(lambda: base, BASE, (B, A), 1.0, base.shape, base.dtype, base.device)


def _normal(seed: int) -> Callable[[Shape], Tensor]:
    # On the CPU, so that every device merges the same numbers.
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


def _seeds(inputs: int) -> range:
    return range(1, inputs + 1)
