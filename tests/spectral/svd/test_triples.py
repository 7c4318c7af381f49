"""Compare singular triples and nearest orthonormal matrices with those of torch."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import relative_error
from support.matrices import SPECTRA, gaussian, with_spectrum
from torch import Tensor

from mergekit_spectral.spectral import (
    Delta,
    DenseDelta,
    FactoredDelta,
    at_most,
    nearest_orthonormal,
    singular_triples,
)

SHAPES = [(9, 14), (14, 9), (10, 10)]


def keep(k: int):
    return at_most(k, len)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_triples_of_a_dense_delta(shape: tuple[int, int], few: bool, spectrum: str):
    (D,) = with_spectrum(spectrum, shape, 1)
    triples = singular_triples(DenseDelta(D), keep(4), few)
    _, values, _ = torch.linalg.svd(D)
    torch.testing.assert_close(triples.values, values[:4])
    _assert_triples_of(D, triples.U, triples.values, triples.V)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_are_in_float64_whatever_the_inputs_are(dtype: torch.dtype, shape: tuple[int, int]):
    base, tuned = (tensor.to(dtype) for tensor in gaussian(shape, 2))
    triples = singular_triples(DenseDelta(tuned, base), keep(9))
    D = tuned.float() - base.float()  # as it is computed
    _assert_triples_of(D.double(), triples.U, triples.values, triples.V)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 12])
def test_triples_of_factors(shape: tuple[int, int], rank: int):
    B, A = gaussian((shape[0], rank), 1)[0], gaussian((rank, shape[1]), 1, seed=1)[0]
    k = min(rank, *shape)
    triples = singular_triples(FactoredDelta(B, A), keep(k))
    assert triples.U.shape == (shape[0], k)
    _assert_triples_of(B @ A, triples.U, triples.values, triples.V)
    assert relative_error(triples.with_values(triples.values).to_dense(), B @ A) < 1e-12


@pytest.mark.parametrize(
    "delta", [DenseDelta(torch.zeros(4, 6)), FactoredDelta(torch.zeros(4, 2), torch.ones(2, 6))]
)
def test_a_zero_delta_has_no_triples(delta: Delta):
    triples = singular_triples(delta, len)
    assert triples.values.numel() == 0
    assert torch.equal(triples.with_values(triples.values).to_dense(), torch.zeros(4, 6))


@given(
    seed=st.integers(0, 1000),
    rows=st.integers(2, 12),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
def test_nearest_orthonormal_is_the_polar_factor(seed: int, rows: int, widths: list[int]):
    parts = [gaussian((rows, width), 1, seed + i)[0] for i, width in enumerate(widths)]
    X = torch.cat(parts, dim=1)
    nearest = nearest_orthonormal(parts)
    assert relative_error(nearest, reference.nearest_orthonormal(X)) < 1e-6
    if X.shape[1] <= rows:
        torch.testing.assert_close(nearest.T @ nearest, torch.eye(X.shape[1]).double())


def test_nearest_orthonormal_of_copies_shares_their_directions():
    (Q,) = gaussian((8, 3), 1)
    Q = torch.linalg.qr(Q).Q
    first, second = nearest_orthonormal([Q, Q]).split(3, dim=1)
    torch.testing.assert_close(first, Q / 2**0.5)
    torch.testing.assert_close(second, first)


def test_nearest_orthonormal_of_nothing():
    assert nearest_orthonormal([torch.zeros(5, 0).double()]).shape == (5, 0)


def _assert_triples_of(D: Tensor, U: Tensor, values: Tensor, V: Tensor) -> None:
    """Check D·V = U·diag(s), Dᵀ·U = V·diag(s), and orthonormal U and V."""
    eye = torch.eye(len(values)).double()
    assert {U.dtype, values.dtype, V.dtype} == {torch.float64}
    assert (U.T @ U - eye).norm() < 1e-6
    assert (V.T @ V - eye).norm() < 1e-6
    assert (D.double() @ V - U * values).norm() < 1e-6 * values[0]
    assert (D.double().T @ U - V * values).norm() < 1e-6 * values[0]
