"""DRM without its renormalization, to measure what that is worth, through mergekit.

    python -m benchmarks.quality.merging.without_renormalization recipe.yml out/

takes what `mergekit-yaml` takes, and knows one method more: `drm_without_renormalization`.
"""

from __future__ import annotations

from dataclasses import replace

from mergekit.merge_methods import registry
from mergekit.scripts.run_yaml import main

from mergekit_spectral.inspecting.unrenormalized import UnrenormalizedCoordinates
from mergekit_spectral.methods import DRM


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
