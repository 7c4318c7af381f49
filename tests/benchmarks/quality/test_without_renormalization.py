"""DRM without its renormalization, against its definition in float64."""

from __future__ import annotations

import pytest
import reference
import torch
from support.matrices import gaussian, with_spectrum
from torch import Tensor

from benchmarks.quality.merging.without_renormalization import DRMWithoutRenormalization
from mergekit_spectral.methods import DRM
from mergekit_spectral.spectral import DenseDelta, FactoredDelta


def definition(deltas: list[Tensor], density: float, direction: str) -> Tensor:
    def merge(C: list[Tensor]) -> Tensor:
        s = torch.cat(C, dim=1).norm(dim=1, keepdim=True)
        return reference.elect_and_average(
            [s * V_t for V_t in reference.prune([c / s for c in C], density)]
        )

    return reference.in_joint_basis(deltas, merge, direction, rank_tolerance=0.01)


def settings(count: int, density: float, direction: str) -> dict[str, object]:
    return {
        "weight": [1.0] * count,
        "density": [density] * count,
        "normalize": True,
        "direction": direction,
        "rank_tolerance": 0.01,
    }


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("spectrum", ["gaussian", "power law"])
def test_dense(direction: str, density: float, spectrum: str):
    # Of different sizes, so that the smaller one's rows are pruned more often than its share.
    deltas = [c * d for c, d in zip((1, 0.5, 2), with_spectrum(spectrum, (24, 40), 3), strict=True)]
    expected = definition(deltas, density, direction)
    given = settings(3, density, direction)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        inputs = [DenseDelta(delta.to(dtype)) for delta in deltas]
        actual = DRMWithoutRenormalization().merge_matrices(inputs, given).to_dense()
        assert reference.relative_error(actual, expected) < tolerance
    renormalized = DRM().merge_matrices([DenseDelta(d) for d in deltas], given).to_dense()
    # Without pruning there is nothing that renormalization could change.
    assert (reference.relative_error(renormalized, expected) > 0.05) == (density < 1)


def test_factors():
    factors = list(zip(gaussian((32, 4), 3), gaussian((4, 20), 3, seed=1), strict=True))
    expected = definition([B @ A for B, A in factors], 0.3, "horizontal")
    inputs = [FactoredDelta(B.float(), A.float()) for B, A in factors]
    merged = DRMWithoutRenormalization().merge_matrices(inputs, settings(3, 0.3, "horizontal"))
    assert reference.relative_error(merged.to_dense(), expected) < 1e-4


def test_it_is_a_method_of_its_own_that_recipes_do_not_know_by_themselves():
    from mergekit.merge_methods import registered_methods

    method = DRMWithoutRenormalization()
    assert method.spec.name == "drm_without_renormalization"
    assert method.spec.parameters == DRM().spec.parameters
    assert method.spec.name not in {m.spec.name for m in registered_methods()}
