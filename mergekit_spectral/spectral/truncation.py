"""Spectral truncation and rescale of one delta (STAR, arXiv 2502.10339, §3)."""

from __future__ import annotations

import torch
from torch import Tensor

from mergekit_spectral.spectral.decomposition import joint_decomposition
from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.factored_delta import FactoredDelta
from mergekit_spectral.spectral.precision import TIE, exact_matmul

_NOISE = 1e-7
"""Singular values at most this share of the largest are rounding noise of a Gram matrix."""


def kept_rank(spectrum: Tensor, eta: float) -> int:
    """Return the smallest r with s_1 + … + s_r ≥ (eta/100)·(s_1 + … + s_n).

    A sum that falls short of it by no more than the share `TIE` reaches it.

    Args:
        spectrum: singular values, [n], descending, at least one.
        eta: a percentage, 0 < eta ≤ 100.
    """
    cumulative = spectrum.cumsum(0)
    return int((cumulative < (1 - TIE) * eta / 100 * cumulative[-1]).sum()) + 1


@exact_matmul()
def truncate(delta: Delta, eta: float) -> FactoredDelta:
    """Keep a delta's leading directions and rescale them to the delta's own nuclear norm.

    Args:
        delta: [out, in].
        eta: the percentage of the nuclear norm that the kept directions must reach before
            rescaling, 0 < eta ≤ 100.

    Returns:
        U_r · diag(s_r)·V_rᵀ · Σs/Σs_r in factors, of rank r; of rank 0 if the delta is zero.
    """
    noise = 0.0 if delta.dtype == torch.float64 else _NOISE

    def without_noise(spectrum: Tensor) -> Tensor:
        return spectrum.masked_fill(spectrum <= noise * spectrum[:1], 0)

    decomposition = joint_decomposition(
        [delta], lambda s: kept_rank(without_noise(s), eta), few=True
    )
    spectrum, r = without_noise(decomposition.spectrum), decomposition.basis.shape[1]
    rescale = float(spectrum.sum() / spectrum[:r].sum()) if r else 1.0
    return FactoredDelta(decomposition.basis, decomposition.coordinates(delta) * rescale)
