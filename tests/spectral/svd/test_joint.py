"""The joint decomposition of dense and of factored deltas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from support.matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import (
    DenseDelta,
    FactoredDelta,
    above_tolerance,
    joint_decomposition,
)


def decompose(deltas: list[Tensor], tolerance: float = 0.01, resolution: float | None = None):
    return joint_decomposition(
        [DenseDelta(delta) for delta in deltas],
        above_tolerance(tolerance),
        tolerance if resolution is None else resolution,
    )


# (dtype, resolution, shape, number of inputs). Each case uses another algorithm: the plain SVD, the
# left Gram matrix or the right Gram matrix.
BRANCHES = {
    "svd, float64": (torch.float64, 0.01, (24, 40), 3),
    "svd, fine resolution": (torch.float32, 0.0, (24, 40), 3),
    "left gram": (torch.float32, 0.01, (24, 40), 3),
    "left gram, tall": (torch.float32, 0.01, (40, 24), 3),
    "right gram": (torch.float32, 0.01, (60, 12), 3),
}


@pytest.mark.parametrize("branch", BRANCHES)
def test_branches_agree_with_plain_svd(branch: str):
    dtype, resolution, shape, count = BRANCHES[branch]
    deltas = [delta.to(dtype) for delta in gaussian(shape, count)]
    joint = decompose(deltas, 0.01, resolution)
    U, s, Vh = torch.linalg.svd(torch.cat(deltas, 1).double(), full_matrices=False)
    eps = torch.finfo(dtype).eps

    torch.testing.assert_close(joint.spectrum, s, rtol=1e-9, atol=0)
    k = joint.basis.shape[1]
    assert k == (s > 0.01 * s[0]).sum()
    assert joint.basis.dtype == dtype
    identity = torch.eye(k, dtype=dtype)
    torch.testing.assert_close(joint.basis.T @ joint.basis, identity, rtol=0, atol=40 * eps)
    coordinates = torch.cat([joint.coordinates(DenseDelta(delta)) for delta in deltas], 1)
    signs = (U[:, :k] * joint.basis).sum(0).sign()
    expected = signs[:, None] * s[:k, None] * Vh[:k]
    torch.testing.assert_close(coordinates.double(), expected, rtol=0, atol=200 * eps * float(s[0]))


@given(delta_groups())
def test_inputs_share_the_norm_of_each_direction(deltas: list[Tensor]):
    """By DRM's proposition 1, the inputs' shares of a direction's squared norm add up to 1."""
    joint = decompose(deltas)
    squares = sum(joint.coordinates(DenseDelta(d)).square().sum(1) for d in deltas)
    k = joint.basis.shape[1]
    torch.testing.assert_close(squares, joint.spectrum[:k] ** 2, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("shape", [(8, 12), (40, 8)])
def test_squares_stay_in_range(size: float, shape: tuple[int, int]):
    deltas = [delta.float() for delta in gaussian(shape, 2)]
    plain = decompose(deltas)
    scaled = decompose([delta * size for delta in deltas])
    torch.testing.assert_close(scaled.spectrum, plain.spectrum * size, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_noise_is_not_a_direction(dtype: torch.dtype):
    exact = torch.arange(20, dtype=dtype)[:, None] * torch.ones(1, 16, dtype=dtype)
    assert decompose([exact, 3 * exact], 0.0).basis.shape[1] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_deltas_have_no_directions(dtype: torch.dtype):
    zero = torch.zeros(5, 7, dtype=dtype)
    joint = decompose([zero, zero])
    assert joint.basis.shape == (5, 0)
    assert joint.coordinates(DenseDelta(zero)).shape == (0, 7)
    assert not joint.spectrum.any()


def test_tolerance_is_strict():
    s = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    assert above_tolerance(0.5)(s) == 1
    assert above_tolerance(0.49)(s) == 2
    assert above_tolerance(0.0)(s) == 3


@pytest.mark.parametrize("shape", [(64, 48), (512, 64)])
def test_rounding_noise_is_not_a_coordinate(shape: tuple[int, int]):
    """Inputs with orthogonal column spaces have no coordinates in each other's directions."""
    out_features, in_features = shape
    Q = torch.linalg.qr(gaussian((out_features, 16), 1)[0]).Q.float()
    A, B = (delta.float() for delta in gaussian((8, in_features), 2, seed=1))
    deltas = [Q[:, :8] @ A, Q[:, 8:] @ B]
    joint = decompose(deltas)
    rows = [joint.coordinates(DenseDelta(delta)).any(dim=1) for delta in deltas]
    assert rows[0].sum() == rows[1].sum() == 8
    assert not (rows[0] & rows[1]).any()


@given(delta_groups(min_inputs=2))
def test_factored_and_dense_deltas_have_the_same_decomposition(deltas: list[Tensor]):
    factored = []
    for delta in deltas:
        U, s, Vh = torch.linalg.svd(delta, full_matrices=False)
        factored.append(FactoredDelta(U * s, Vh))
    rule = above_tolerance(0.01)
    thin = joint_decomposition(factored, rule)
    dense = joint_decomposition([DenseDelta(delta) for delta in deltas], rule)
    n = min(len(thin.spectrum), len(dense.spectrum))
    torch.testing.assert_close(thin.spectrum[:n], dense.spectrum[:n], rtol=1e-9, atol=1e-12)
    projectors = [joint.basis @ joint.basis.T for joint in (thin, dense)]
    torch.testing.assert_close(*projectors, rtol=0, atol=1e-8)


def test_factors_of_zeros_have_no_directions():
    zero = FactoredDelta(torch.zeros(6, 2), torch.zeros(2, 5))
    none = FactoredDelta(torch.zeros(6, 0), torch.zeros(0, 5))
    assert joint_decomposition([zero, none], above_tolerance(0)).basis.shape == (6, 0)
