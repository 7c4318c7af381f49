"""The best approximation of lower rank to a delta (Eckart, Young), and what it loses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mergekit_spectral.spectral.decomposition import joint_decomposition
from mergekit_spectral.spectral.delta import Delta
from mergekit_spectral.spectral.factored_delta import FactoredDelta
from mergekit_spectral.spectral.precision import exact_matmul


@dataclass(frozen=True)
class Compressed:
    """A delta of low rank, and how much of the original it holds.

    Attributes:
        delta: of rank r. Its factors share the singular values equally, diag(√s)·Vᵀ and U·diag(√s),
            so that neither is rounded more than the other in a dtype of few digits.
        kept: the share of the original's squared Frobenius norm, 0 to 1.
    """

    delta: FactoredDelta
    kept: float

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.delta.B.shape[1]


@exact_matmul()
def compress(delta: Delta, rank: int | None = None, energy: float = 1.0) -> Compressed:
    """Return the best approximation of at most `rank` that keeps at least `energy`.

    Args:
        delta: [out, in].
        rank: the largest rank to use, at least 1; if None, as many as it takes.
        energy: the share of the squared Frobenius norm to keep, 0 < energy ≤ 1, where `rank` allows
            it. 1 keeps all directions but those of rounding noise.
    """
    noise = 4 * torch.finfo(delta.dtype).eps

    def rule(spectrum: Tensor) -> int:
        present = int((spectrum > noise * spectrum[0]).sum())
        squares = spectrum[:present].square()
        enough = int((squares.cumsum(0) < energy * squares.sum()).sum()) + 1
        return min(enough, present, rank or present)

    decomposition = joint_decomposition([delta], rule, few=True)
    U, s = decomposition.basis, decomposition.spectrum
    roots = s[: U.shape[1]].sqrt().to(U.dtype)
    compressed = FactoredDelta(U * roots, decomposition.coordinates(delta) / roots[:, None])
    squares = s.square()
    kept = float(squares[: U.shape[1]].sum() / squares.sum()) if U.shape[1] else 1.0
    return Compressed(compressed, kept)
