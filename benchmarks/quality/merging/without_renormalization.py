"""DRM without its renormalization, to measure what that is worth, through mergekit.

    python -m benchmarks.quality.merging.without_renormalization recipe.yml out/

takes what `mergekit-yaml` takes, and knows one method more: `drm_without_renormalization`.
"""

from __future__ import annotations

from dataclasses import replace

from mergekit.merge_methods import registry
from mergekit.scripts.run_yaml import main

from mergekit_spectral.methods import DRM
from mergekit_spectral.spectral import Coordinates
from mergekit_spectral.spectral.entries import Rows


class UnrenormalizedCoordinates(Coordinates):
    """Coordinates diag(s)·V_tᵀ that are compared by the entries of V_tᵀ as they are."""

    def take(self, rows: slice) -> Rows:
        values = super().take(rows).values
        singular_values = self.joint.spectrum[: self.shape[0]][rows, None].to(values[0].dtype)
        return Rows(values, [singular_values] * self.count)


class DRMWithoutRenormalization(DRM):
    """DRM that prunes the V_tᵀ themselves, whose rows share one norm budget."""

    coordinates = UnrenormalizedCoordinates

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(
            self.spec, name="drm_without_renormalization", pretty_name="DRM without renormalization"
        )


if __name__ == "__main__":
    registry.register(DRMWithoutRenormalization())
    main()
