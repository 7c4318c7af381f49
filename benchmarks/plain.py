"""The definitions of tests/reference.py, with the settings at which the benchmarks measure them.

In float32 they cost what published code costs, an SVD of all deltas side by side: the speed of our
methods is compared to that. In float64 they are what errors are measured from. All weights are 1
and λ is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests import reference

Definition = Callable[..., Tensor]
"""Merges deltas [out, in] along a direction, computing in a dtype, perhaps with a rank."""

DENSITY = 0.5


def merge(
    method: str,
    deltas: Sequence[Tensor],
    direction: str,
    dtype: torch.dtype,
    rank: float | None = None,
) -> Tensor:
    """Merge by a definition.

    Args:
        method: by its name in recipes.
        deltas: T deltas [out, in].
        direction: for the methods that have one.
        dtype: in which the definition computes.
        rank: only for the methods that have that parameter.
    """
    ranked = {} if rank is None else {"rank": rank}
    return DEFINITIONS[method](deltas, direction, dtype, **ranked)


def drm(
    deltas: Sequence[Tensor], direction: str, dtype: torch.dtype, rank: float | None = None
) -> Tensor:
    """Merge with DRM."""
    return reference.drm(deltas, DENSITY, direction=direction, rank=rank, dtype=dtype)


def knots_ties(
    deltas: Sequence[Tensor], direction: str, dtype: torch.dtype, rank: float | None = None
) -> Tensor:
    """Merge with KnOTS-TIES."""
    return reference.knots_ties(deltas, DENSITY, direction=direction, rank=rank, dtype=dtype)


def star(deltas: Sequence[Tensor], _direction: str, dtype: torch.dtype) -> Tensor:
    """Merge with STAR, which has no direction."""
    return reference.star(deltas, dtype=dtype)


def iso(deltas: Sequence[Tensor], _direction: str, dtype: torch.dtype) -> Tensor:
    """Merge with Iso, which has no direction."""
    return reference.iso(deltas, dtype=dtype)


def tsvm(deltas: Sequence[Tensor], _direction: str, dtype: torch.dtype) -> Tensor:
    """Merge with TSV-M, which has no direction."""
    return reference.tsvm(deltas, dtype=dtype)


def actmat(deltas: Sequence[Tensor], direction: str, dtype: torch.dtype) -> Tensor:
    """Merge with ACTMat."""
    return reference.actmat(deltas, direction=direction, dtype=dtype)


DEFINITIONS: dict[str, Definition] = {
    "drm": drm,
    "knots": knots_ties,
    "knots_ties": knots_ties,
    "star": star,
    "iso": iso,
    "tsvm": tsvm,
    "actmat": actmat,
}
"""By the methods' names in recipes."""
