"""What DRM would prune without its renormalization, to compare."""

from __future__ import annotations

from mergekit_spectral.spectral import Coordinates
from mergekit_spectral.spectral.entries import Rows


class UnrenormalizedCoordinates(Coordinates):
    """Coordinates diag(s)·V_tᵀ that are compared by the entries of V_tᵀ as they are."""

    def take(self, rows: slice) -> Rows:
        values = super().take(rows).values
        singular_values = self.joint.spectrum[: self.shape[0]][rows, None].to(values[0].dtype)
        return Rows(values, [singular_values] * self.count)
