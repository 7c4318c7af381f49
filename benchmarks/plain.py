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

Definition = Callable[[Sequence[Tensor], str, torch.dtype], Tensor]
"""Merges deltas [out, in] along a direction, computing in a dtype."""

DENSITY = 0.5


def drm(deltas: Sequence[Tensor], direction: str, dtype: torch.dtype) -> Tensor:
    """Merge with DRM."""
    return reference.drm(deltas, DENSITY, direction=direction, dtype=dtype)


def knots_ties(deltas: Sequence[Tensor], direction: str, dtype: torch.dtype) -> Tensor:
    """Merge with KnOTS-TIES."""
    return reference.knots_ties(deltas, DENSITY, direction=direction, dtype=dtype)


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
