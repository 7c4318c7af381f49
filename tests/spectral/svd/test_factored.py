"""Compare merges of factored deltas with the float64 definitions on B·A, to within 1e-4."""

from __future__ import annotations

import pytest
import reference
import torch
from reference import relative_error
from support.matrices import gaussian
from torch import Tensor

from mergekit_spectral.methods import DRM, STAR, TSVM, ACTMat, Iso
from mergekit_spectral.spectral import (
    FactoredDelta,
    above_tolerance,
    joint_decomposition,
)

Factors = list[tuple[Tensor, Tensor]]


def ordinary(out: int, rest: int, r: int) -> Factors:
    return list(zip(gaussian((out, r), 3), gaussian((r, rest), 3, seed=1), strict=True))


def twins(out: int, rest: int, r: int) -> Factors:
    """Use one adapter twice, so that the rank of the stacked B is below its number of columns."""
    first, second, _ = ordinary(out, rest, r)
    return [first, second, first]


def almost_twins(out: int, rest: int, r: int) -> Factors:
    (B, A), second, third = ordinary(out, rest, r)
    return [(B, A), (B + 1e-5 * second[0], A + 1e-3 * second[1]), third]


def lopsided(out: int, rest: int, r: int) -> Factors:
    """Use factors of very different sizes, whose products are of similar size."""
    sizes = (1e-6, 1.0, 1e5)
    return [(B * c, A / c) for (B, A), c in zip(ordinary(out, rest, r), sizes, strict=True)]


def decaying(out: int, rest: int, r: int) -> Factors:
    decay = torch.logspace(0, -6, r, dtype=torch.float64)
    return [(B * decay, A) for B, A in ordinary(out, rest, r)]


KINDS = {f.__name__: f for f in (ordinary, twins, almost_twins, lopsided, decaying)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 96, 8), (96, 40, 8), (20, 60, 8)])
def test_merges_agree_with_the_definitions(
    kind: str, dtype: torch.dtype, shape: tuple[int, int, int]
):
    stored = [(B.to(dtype), A.to(dtype)) for B, A in KINDS[kind](*shape)]
    exact = [B.double() @ A.double() for B, A in stored]
    deltas = [FactoredDelta(B.float(), A.float()) for B, A in stored]
    settings = {
        "weight": [1.0, 0.5, 2.0],
        "density": [0.5] * 3,
        "eta": [60.0] * 3,
        "normalize": True,
        "direction": "horizontal",
        "rank_tolerance": 0.01,
        "rank": None,
        "renormalize": True,
        "flatten": 0.75,
        "share": [2.0] * 3,
    }
    drm = DRM().merge_matrices(deltas, settings).to_dense()
    star = STAR().merge_matrices(deltas, settings).to_dense()
    weights = settings["weight"]
    assert relative_error(drm, reference.drm(exact, density=0.5, weights=weights)) < 1e-4
    assert relative_error(star, reference.star(exact, eta=60, weights=weights)) < 1e-4
    iso = Iso().merge_matrices(deltas, settings).to_dense()
    tsvm = TSVM().merge_matrices(deltas, settings).to_dense()
    own = {"weights": weights, "rank_tolerance": 0.01}
    assert relative_error(iso, reference.iso(exact, **own)) < 1e-4
    assert relative_error(tsvm, reference.tsvm(exact, share=2.0, **own)) < 1e-4
    actmat = ACTMat().merge_matrices(deltas, settings | {"rank_tolerance": 0.1}).to_dense()
    own |= {"direction": "horizontal", "rank_tolerance": 0.1}
    assert relative_error(actmat, reference.actmat(exact, **own)) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resolution", [1e-5, 1e-9])
def test_basis_is_orthonormal_and_complete(kind: str, resolution: float):
    factors = KINDS[kind](48, 64, 6)
    deltas = [FactoredDelta(B.float(), A.float()) for B, A in factors]
    joint = joint_decomposition(deltas, above_tolerance(resolution), resolution)
    U = joint.basis
    identity = torch.eye(U.shape[1])
    torch.testing.assert_close(U.T @ U, identity, rtol=0, atol=1e-5)
    for delta in deltas:
        assert relative_error(U @ joint.coordinates(delta), delta.to_dense()) < 1e-4
