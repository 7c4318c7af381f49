"""STAR's truncation."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import relative_error
from support.matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import DenseDelta, FactoredDelta, kept_rank, truncate


@given(delta_groups(max_inputs=1), st.floats(1, 100))
def test_nuclear_norm_is_kept(deltas: list[Tensor], eta: float):
    truncated = truncate(DenseDelta(deltas[0]), eta).to_dense()
    expected = torch.linalg.svdvals(deltas[0]).sum()
    torch.testing.assert_close(torch.linalg.svdvals(truncated).sum(), expected)


@given(delta_groups(max_inputs=1))
def test_eta_of_100_changes_nothing(deltas: list[Tensor]):
    assert relative_error(truncate(DenseDelta(deltas[0]), 100).to_dense(), deltas[0]) < 1e-9


@pytest.mark.parametrize(("eta", "rank"), [(1, 1), (50, 1), (50.1, 2), (80, 2), (81, 3), (100, 3)])
def test_kept_rank(eta: float, rank: int):
    assert kept_rank(torch.tensor([5.0, 3.0, 2.0], dtype=torch.float64), eta) == rank


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_float32_agrees_with_the_definition(shape: tuple[int, int]):
    (delta,) = gaussian(shape, 1)
    actual = truncate(DenseDelta(delta.float()), 40).to_dense()
    assert relative_error(actual, reference.truncate(delta.float(), 40)) < 1e-5


def test_zero_delta_is_truncated_to_rank_zero():
    truncated = truncate(DenseDelta(torch.zeros(4, 6)), 40)
    assert truncated.B.shape == (4, 0)
    assert not truncated.to_dense().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_factors_whose_product_is_zero(dtype: torch.dtype):
    B, A = torch.zeros(4, 2, dtype=dtype), torch.zeros(2, 6, dtype=dtype)
    B[:, 0], A[1] = 1, 1
    truncated = truncate(FactoredDelta(B, A), 40).to_dense()
    assert torch.equal(truncated, torch.zeros(4, 6, dtype=dtype))
