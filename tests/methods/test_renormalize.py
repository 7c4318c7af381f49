"""Compare DRM without its renormalization with the definition in float64."""

from __future__ import annotations

import pytest
import reference
import torch
from support.matrices import gaussian, with_spectrum
from support.merging import merge_matrices

from mergekit_spectral.spectral import DenseDelta, FactoredDelta


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("spectrum", ["gaussian", "power law"])
def test_dense_inputs(direction: str, density: float, spectrum: str):
    # The inputs have different sizes, so that without renormalization the smallest is pruned most.
    deltas = [c * d for c, d in zip((1, 0.5, 2), with_spectrum(spectrum, (24, 40), 3), strict=True)]
    given = {"density": density, "direction": direction}
    expected = reference.drm(deltas, renormalize=False, **given)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        inputs = [DenseDelta(delta.to(dtype)) for delta in deltas]
        actual = merge_matrices(inputs, "drm", renormalize=False, **given)
        assert reference.relative_error(actual, expected) < tolerance
    renormalized = merge_matrices([DenseDelta(delta) for delta in deltas], "drm", **given)
    # Without pruning, renormalization has no effect.
    assert (reference.relative_error(renormalized, expected) > 0.05) == (density < 1)


def test_factored_inputs():
    factors = list(zip(gaussian((32, 4), 3), gaussian((4, 20), 3, seed=1), strict=True))
    expected = reference.drm([B @ A for B, A in factors], density=0.3, renormalize=False)
    inputs = [FactoredDelta(B.float(), A.float()) for B, A in factors]
    merged = merge_matrices(inputs, "drm", density=0.3, renormalize=False)
    assert reference.relative_error(merged, expected) < 1e-4
