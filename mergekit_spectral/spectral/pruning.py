"""Pruning by magnitude (DRM, «Prune»)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def prune(tensors: Sequence[Tensor], densities: Sequence[float]) -> list[Tensor]:
    """Zero the smallest entries of each tensor, keeping the share `density` of them.

    Where all densities agree, the threshold is common: of all N entries of all tensors together,
    those whose magnitude is strictly below the j-th smallest become zero, j = N − round(N·p). Where
    they differ, each tensor is pruned by its own density over its own entries.

    Args:
        tensors: T tensors, float32 or float64.
        densities: T densities p > 0; p ≥ 1 prunes nothing.

    Returns:
        T new tensors, or the given ones where nothing is pruned.
    """
    if len(set(densities)) == 1:
        return _prune_together(tensors, densities[0])
    return [
        pruned
        for tensor, density in zip(tensors, densities, strict=True)
        for pruned in _prune_together([tensor], density)
    ]


def _prune_together(tensors: Sequence[Tensor], density: float) -> list[Tensor]:
    count = sum(tensor.numel() for tensor in tensors)
    dropped = count - round(count * density)
    if dropped <= 0:
        return list(tensors)
    magnitudes = torch.cat([tensor.abs().flatten() for tensor in tensors])
    threshold = magnitudes.kthvalue(dropped).values
    return [torch.where(tensor.abs() < threshold, 0, tensor) for tensor in tensors]
