"""Renormalization of the rows that one input holds in the joint basis (DRM, «Renormalize»)."""

from __future__ import annotations

import torch
from torch import Tensor


def renormalize(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Split an input's coordinates into rows of unit length and their lengths.

    With coordinates diag(s)·V_tᵀ and n_i the norm of row i of V_tᵀ, the lengths are s_i·n_i, the
    renormalized singular values s̃_t, and the unit rows are those of Ṽ_t. The squares of n_i over
    all inputs add up to 1, the shared norm budget.

    A zero row (an input that has no part in that direction) stays zero, with length 0.

    Args:
        coordinates: [k, in], float32 or float64.

    Returns:
        The unit rows, [k, in], and their lengths, [k, 1].
    """
    lengths = torch.linalg.vector_norm(coordinates, dim=1, keepdim=True)
    inverse = torch.where(lengths > 0, 1 / lengths, 0)
    return coordinates * inverse, lengths
