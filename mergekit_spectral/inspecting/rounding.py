"""Recognize updates of low rank under the rounding of the weights that they were added to.

A LoRA adapter that was merged into a checkpoint in bfloat16 or float16 is no longer of low rank:
every weight was rounded, and the rounding errors spread over all directions. But their size is
known, and their singular values form a flat floor. What rises above the floor is the adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral import Delta, DenseDelta

CLEAR = 3
"""Updates are judged if their norm is at least this many times that of the rounding errors."""
LOW = 1 / 10
"""Updates are of low rank if they have at most this share of the directions that they could."""
REST = 1.05
"""Most that the rest of an update of low rank has, in squared norms of the rounding errors.

For adapters of rank 16 that were merged into SmolLM2-135M, the rest has 0.85 to 0.95. For full
fine-tunes of it whose norm is at least `CLEAR` times that of the errors, it has 1.1 to 1.6.
"""
EDGE = 1.5
"""How far above the edge of the rounding errors' singular values a direction must be."""
EXACT = 1e-5
"""Smallest size of errors, relative to the update: that of a decomposition in float32."""
_BLOCK = 1 << 22
"""Number of entries that are looked at together."""


@dataclass(frozen=True)
class Rounding:
    """An update, compared with the errors of rounding the weights that it was added to.

    Attributes:
        noise: expected Frobenius norm of the rounding errors.
        edge: singular value above which a direction is more than rounding, divided by the largest.
        rank: number of directions above the edge.
        rest: Frobenius norm of the other directions.
    """

    noise: float
    edge: float
    rank: int
    rest: float

    def is_low_rank(self, norm: float, shape: tuple[int, int]) -> bool:
        """Return whether an update has few directions, and is otherwise no more than rounding.

        Args:
            norm: Frobenius norm of the update.
            shape: shape of the update.
        """
        clear = norm >= CLEAR * self.noise
        few = 1 <= self.rank <= max(1, LOW * min(shape))
        return clear and few and self.rest**2 <= REST * self.noise**2


def compare_with_rounding(delta: Delta, spectrum: Tensor) -> Rounding | None:
    """Compare an update with the errors of rounding the weights that it was added to.

    Args:
        delta: the update, [out, in].
        spectrum: its singular values, descending, not all zero.

    Returns:
        The comparison; None if the update was not computed from a rounded weight, as adapters
        are not.
    """
    if not isinstance(delta, DenseDelta) or delta.base is None:
        return None
    values = spectrum.double().cpu()
    noise = max(rounding_norm(delta.tuned), EXACT * float(values.norm()))
    # The largest singular value of a matrix of independent errors (Marchenko and Pastur, 1967).
    largest = noise * sum(1 / math.sqrt(side) for side in delta.shape)
    rank = int((values > EDGE * largest).sum())
    return Rounding(
        noise=float(f"{noise:.4g}"),
        edge=float(f"{EDGE * largest / float(values[0]):.4g}"),
        rank=rank,
        rest=float(f"{float(values[rank:].norm()):.4g}"),
    )


def rounding_norm(weight: Tensor) -> float:
    """Return the expected norm of the errors from rounding a weight to the precision it has.

    A number that is rounded to a multiple of u has an error with the variance u²/12. The precision
    is that of the values, which may be lower than that of the dtype: a checkpoint in bfloat16 may
    have been read or saved in float32.

    Args:
        weight: the rounded weight, of any shape and floating dtype.
    """
    limits = torch.finfo(_precision(weight))
    total = 0.0
    for block in _blocks(weight):
        _, exponents = torch.frexp(block.float())
        # frexp gives x = m·2^e with 0.5 ≤ m < 1, so numbers near x are 2^(e - 1)·eps apart.
        units = torch.ldexp(torch.full(block.shape, limits.eps / 2), exponents)
        units = units.clamp(min=limits.smallest_normal * limits.eps)
        total += float((units.double() ** 2).sum())
    return math.sqrt(total / 12)


def _precision(weight: Tensor) -> torch.dtype:
    """Return the dtype of the fewest digits that holds all of a weight's values."""
    for dtype in (torch.bfloat16, torch.float16):
        if weight.dtype == dtype or all(
            torch.equal(block.to(dtype).to(block.dtype), block) for block in _blocks(weight)
        ):
            return dtype
    return torch.float32


def _blocks(weight: Tensor) -> tuple[Tensor, ...]:
    return torch.split(weight, max(1, _BLOCK // max(1, weight[0].numel())))
