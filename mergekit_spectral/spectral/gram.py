"""Singular values and vectors through Gram matrices, and where that is good enough."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RankRule = Callable[[Tensor], int]
"""From all singular values, [n] in float64 and descending, to the number of directions to keep."""

GRAM_RESOLUTION = 1e-6
"""The smallest singular value, relative to the largest, that a float64 Gram matrix resolves.

Squaring halves the digits: eigenvalues come out to about 1e-16 of the largest, so singular values
to about 1e-8 of the largest, with a margin for the matrix's size.
"""


def descending_eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvectors of M·Mᵀ, in columns, and the singular values of M, largest first."""
    eigenvalues, vectors = torch.linalg.eigh(gram)
    return vectors.flip(1), eigenvalues.flip(0).clamp_(min=0).sqrt_()


def kept(rank: RankRule, values: Tensor) -> int:
    """Return the number of directions to keep: none of a matrix that is zero."""
    return rank(values) if values.numel() and values[0] > 0 else 0


def solvable(matrix: Tensor) -> Tensor:
    """Return a matrix in float64, where there are float64 and LAPACK: on the CPU or on CUDA."""
    return (matrix if matrix.device.type in ("cpu", "cuda") else matrix.cpu()).double()
