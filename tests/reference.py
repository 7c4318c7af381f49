"""The definitions of DRM, KnOTS and STAR in plain float64: the measure of everything else.

Written to be checked against the papers by eye: `torch.linalg.svd` on the whole concatenation, one
line per step, no shortcut. Every function takes T deltas of shape [out, in] and returns the merged
delta, [out, in].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Deltas = Sequence[Tensor]
NUMERICAL_ZERO = 1e-12
"""Relative size under which a float64 row norm is rounding noise, so the row counts as zero."""


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖ in float64; the plain error where `expected` is zero."""
    difference = torch.linalg.vector_norm(actual.double() - expected.double())
    size = torch.linalg.vector_norm(expected.double())
    return float(difference / size) if size > 0 else float(difference)


def drm(
    deltas: Deltas,
    density: float | Sequence[float] = 0.2,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
    direction: str = "horizontal",
    rank_tolerance: float = 0.01,
) -> Tensor:
    def merge(deltas: Deltas) -> Tensor:
        U, s, blocks = joint_svd(deltas, rank_tolerance)
        rows, scales = [], []
        for V_t in blocks:
            n = V_t.norm(dim=1, keepdim=True)
            rows.append(V_t / n.masked_fill(n == 0, 1))
            scales.append(s[:, None] * n)
        pruned = prune(rows, density)
        X = [scale * row for scale, row in zip(scales, pruned, strict=True)]
        return lam * U @ elect_and_average(X, weights, normalize)

    return along(direction, merge, deltas)


def knots_ties(
    deltas: Deltas,
    density: float = 1.0,
    weights: Sequence[float] | None = None,
    lam: float = 1.0,
    direction: str = "horizontal",
    rank_tolerance: float = 1e-5,
) -> Tensor:
    def merge(deltas: Deltas) -> Tensor:
        U, s, blocks = joint_svd(deltas, rank_tolerance)
        C = [s[:, None] * V_t for V_t in blocks]
        return lam * U @ elect_and_average([trim(c, density) for c in C], weights)

    return along(direction, merge, deltas)


def star(
    deltas: Deltas,
    eta: float | Sequence[float] = 40.0,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
) -> Tensor:
    etas = [eta] * len(deltas) if isinstance(eta, int | float) else list(eta)
    weights = [1.0] * len(deltas) if weights is None else weights
    merged = sum(w * truncate(D, e) for w, D, e in zip(weights, deltas, etas, strict=True))
    return lam * merged / (sum(weights) if normalize else 1.0)


def truncate(delta: Tensor, eta: float) -> Tensor:
    U, s, Vh = torch.linalg.svd(delta.double(), full_matrices=False)
    if s.sum() == 0:
        return torch.zeros_like(delta.double())
    total = s.cumsum(0)
    r = int((total >= eta / 100 * total[-1]).nonzero()[0]) + 1
    return (U[:, :r] * s[:r]) @ Vh[:r] * s.sum() / s[:r].sum()


def elementwise_drm(
    deltas: Deltas,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    lam: float = 1.0,
) -> Tensor:
    return lam * elect_and_average([D.double() for D in deltas], weights, normalize)


def along(direction: str, merge: Callable[[Deltas], Tensor], deltas: Deltas) -> Tensor:
    out_features, in_features = deltas[0].shape
    if direction == "auto":
        direction = "horizontal" if out_features <= in_features else "vertical"
    if direction == "horizontal":
        return merge([D.double() for D in deltas])
    return merge([D.double().T for D in deltas]).T


def joint_svd(deltas: Deltas, rank_tolerance: float) -> tuple[Tensor, Tensor, list[Tensor]]:
    """U [out, k], s [k] and the T blocks of Vᵀ, each [k, in]."""
    U, s, Vh = torch.linalg.svd(torch.cat(list(deltas), dim=1), full_matrices=False)
    kept = s > rank_tolerance * s[0]
    blocks = Vh[kept].chunk(len(deltas), dim=1)
    noise = [block.norm(dim=1, keepdim=True) <= NUMERICAL_ZERO for block in blocks]
    blocks = [torch.where(n, 0, block) for n, block in zip(noise, blocks, strict=True)]
    return U[:, kept], s[kept], blocks


def prune(rows: Sequence[Tensor], density: float | Sequence[float]) -> list[Tensor]:
    if isinstance(density, int | float):
        density = [density] * len(rows)
    if len(set(density)) > 1:
        return [prune([row], p)[0] for row, p in zip(rows, density, strict=True)]
    magnitudes = torch.cat([row.abs().flatten() for row in rows]).sort().values
    N = magnitudes.numel()
    j = N - round(N * density[0])
    threshold = magnitudes[j - 1] if j > 0 else 0.0
    return [torch.where(row.abs() < threshold, 0, row) for row in rows]


def trim(coordinates: Tensor, density: float) -> Tensor:
    """TIES's own trimming, as mergekit does it: the largest int(p·N) entries stay."""
    kept = min(coordinates.numel(), max(1, int(density * coordinates.numel())))
    largest = coordinates.abs().flatten().topk(kept).indices
    mask = torch.zeros(coordinates.numel(), dtype=torch.bool).index_fill(0, largest, True)
    return torch.where(mask.view_as(coordinates), coordinates, 0)


def elect_and_average(
    X: Sequence[Tensor], weights: Sequence[float] | None = None, normalize: bool = True
) -> Tensor:
    weights = [1.0] * len(X) if weights is None else weights
    weighted = [w * x for w, x in zip(weights, X, strict=True)]
    elected = torch.stack(weighted).sum(0).sign()
    agrees = [(x.sign() == elected) & (x != 0) for x in weighted]
    total = sum(torch.where(a, x, 0) for a, x in zip(agrees, weighted, strict=True))
    mass = sum(w * a.double() for a, w in zip(agrees, weights, strict=True))
    return total / torch.where(mass == 0, 1, mass) if normalize else total
