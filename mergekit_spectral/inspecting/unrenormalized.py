"""What DRM would prune without its renormalization, to compare."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from mergekit_spectral.spectral import Coordinates
from mergekit_spectral.spectral.entries import Rows


class UnrenormalizedCoordinates(Coordinates):
    """Coordinates diag(s)·V_tᵀ that are compared by the entries of V_tᵀ as they are."""

    def take(self, rows: slice) -> Rows:
        singular_values = self.joint.spectrum[: self.shape[0]][rows, None]
        return replace(super().take(rows), units=[singular_values] * self.count)

    def exact_units(self, t: int, rows: Tensor) -> Tensor:
        return self.joint.spectrum[rows]
