"""Singular values and left singular vectors through Gram matrices, and where that is good enough.

The eigenvectors of D·Dᵀ are D's left singular vectors, its eigenvalues their singular values'
squares. Neighbouring singular values of real deltas lie close, so a Gram matrix or an
eigendecomposition in float32 turns the vectors: they are made in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.linalg import LinAlgError as LinAlgError  # type: ignore[attr-defined]

from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.precision import solvable

RankRule = Callable[[Tensor], int]
"""From all singular values, [n] in float64 and descending, to the number of directions to keep."""

GRAM_RESOLUTION = 1e-6
"""The smallest singular value, relative to the largest, that a float64 Gram matrix resolves.

Squaring halves the digits: eigenvalues come out to about 1e-16 of the largest, so singular values
to about 1e-8 of the largest, with a margin for the matrix's size.
"""

_PANELS = 8


def gram_matrix(deltas: Sequence[Delta]) -> Tensor:
    """Return Σ_t D_t·D_tᵀ, [out, out] in float64, of which only the upper triangle is right.

    It takes T·out²·in/2 multiplications, and 8·out² bytes beside a block of one delta. Consumer
    GPUs do float64 at a 32nd or 64th of their speed, which is still several times a CPU's. The
    squares of float32 numbers need no scaling: float64 holds them all.

    Args:
        deltas: T deltas of one shape [out, in], in float32.
    """
    side = deltas[0].shape[0]
    gram = solvable(torch.empty(0, device=deltas[0].device)).new_zeros(side, side)
    panel = -(-side // _PANELS)
    for delta in deltas:
        buffer = gram.new_empty(0)
        for _, block in delta.dense_columns():
            if not buffer.numel():
                buffer = gram.new_empty(block.numel())
            exact = buffer[: block.numel()].view(block.shape).copy_(block)
            for start in range(0, side, panel):
                rows = slice(start, start + panel)
                gram[rows, start:].addmm_(exact[rows], exact[start:].T)
    return gram


def kept(rank: RankRule, values: Tensor) -> int:
    """Return the number of directions to keep: none of a matrix that is zero."""
    return rank(values) if values.numel() and values[0] > 0 else 0
