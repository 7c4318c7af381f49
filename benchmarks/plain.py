"""DRM, KnOTS-TIES and STAR the plain way: as defined, by `torch.linalg.svd`, in the deltas' dtype.

In float32 this is what published code does, and what our methods' speed is compared to; in float64
it is the definition, and what their exactness is measured by. All weights are 1, λ is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mergekit.merge_methods as mm
import torch
from mergekit.merge_methods.base import TensorGroup
from torch import Tensor

Deltas = Sequence[Tensor]
Horizontal = Callable[[Deltas], Tensor]

DENSITY = 0.5
ETA = 40.0


def drm(deltas: Deltas, direction: str) -> Tensor:
    """Joint SVD, rows of unit length, pruning by one threshold, sign election, disjoint mean."""

    def merge(deltas: Deltas) -> Tensor:
        U, s, blocks = joint_svd(deltas, rank_tolerance=0.01)
        norms = [block.norm(dim=1, keepdim=True) for block in blocks]
        rows = [block / n.masked_fill(n == 0, 1) for block, n in zip(blocks, norms, strict=True)]
        pruned = prune(rows)
        X = [s[:, None] * n * row for n, row in zip(norms, pruned, strict=True)]
        return U @ elect_and_average(X)

    return along(direction, merge, deltas)


def knots_ties(deltas: Deltas, direction: str) -> Tensor:
    """Joint SVD, then mergekit's own ties on the coordinates, over a base of zeros."""

    def merge(deltas: Deltas) -> Tensor:
        U, s, blocks = joint_svd(deltas, rank_tolerance=1e-5)
        C = [s[:, None] * block for block in blocks]
        group = TensorGroup.from_tensors([torch.zeros_like(C[0]), *C], base_index=0)
        parameters = {"weight": [1.0] * len(C), "density": [DENSITY] * len(C)}
        (merged,) = mm.get("ties")((group,), parameters=parameters)
        return U @ merged

    return along(direction, merge, deltas)


def star(deltas: Deltas, direction: str) -> Tensor:
    """The mean of the deltas, each cut to its leading directions at its nuclear norm."""
    return torch.stack([truncate(delta) for delta in deltas]).mean(0)


DEFINITIONS: dict[str, Callable[[Deltas, str], Tensor]] = {
    "drm": drm,
    "knots": knots_ties,
    "knots_ties": knots_ties,
    "star": star,
}


def along(direction: str, merge: Horizontal, deltas: Deltas) -> Tensor:
    """Merge with the left basis shared (horizontal), the right one (vertical), or the smaller."""
    out_features, in_features = deltas[0].shape
    if direction == "auto":
        direction = "horizontal" if out_features <= in_features else "vertical"
    return merge(deltas) if direction == "horizontal" else merge([D.T for D in deltas]).T


def joint_svd(deltas: Deltas, rank_tolerance: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return U [out, k], s [k] and the T blocks of Vᵀ, each [k, in]."""
    U, s, Vh = torch.linalg.svd(torch.cat(list(deltas), dim=1), full_matrices=False)
    kept = s > rank_tolerance * s[0]
    blocks = Vh[kept].chunk(len(deltas), dim=1)
    # A row this short is rounding; it must not be blown up to unit length.
    zero = 1e-12 if s.dtype == torch.float64 else 1e-6
    blocks = [b.masked_fill(b.norm(dim=1, keepdim=True) <= zero, 0) for b in blocks]
    return U[:, kept], s[kept], blocks


def prune(rows: Deltas) -> list[Tensor]:
    """Zero what is smaller than the j-th smallest of all N magnitudes, j = N − round(N·p)."""
    magnitudes = torch.cat([row.abs().flatten() for row in rows])
    N = magnitudes.numel()
    threshold = magnitudes.kthvalue(N - round(N * DENSITY)).values
    return [torch.where(row.abs() < threshold, 0, row) for row in rows]


def elect_and_average(X: Deltas) -> Tensor:
    """Elect each entry's sign by the sum, and average those that have it."""
    stacked = torch.stack(list(X))
    agrees = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
    return (stacked * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def truncate(delta: Tensor) -> Tensor:
    """Keep the leading directions that hold η percent of the nuclear norm, and scale up to it."""
    U, s, Vh = torch.linalg.svd(delta, full_matrices=False)
    total = s.cumsum(0)
    r = int((total < ETA / 100 * total[-1]).sum()) + 1
    scaled = s[:r] * (s.sum() / s[:r].sum())
    kept: Tensor = (U[:, :r] * scaled) @ Vh[:r]
    return kept
