"""Compress a delta to a rank or a share of its squared norm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import relative_error
from support.matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import DenseDelta, FactoredDelta, compress


@given(deltas=delta_groups(max_inputs=1), rank=st.integers(1, 12))
def test_compressed_delta_is_the_best_approximation(deltas: list[Tensor], rank: int):
    """By Eckart and Young, this is the truncated SVD: no matrix of that rank is closer."""
    (delta,) = deltas
    compressed = compress(DenseDelta(delta), rank)
    U, s, Vh = torch.linalg.svd(delta, full_matrices=False)
    r = min(rank, int((s > 1e-12 * s[0]).sum()))
    assert compressed.rank == r
    assert relative_error(compressed.delta.to_dense(), (U[:, :r] * s[:r]) @ Vh[:r]) < 1e-9
    expected = float(s[:r].square().sum() / s.square().sum())
    assert compressed.kept == pytest.approx(expected, abs=1e-12)


@given(deltas=delta_groups(max_inputs=1), energy=st.floats(0.05, 1))
def test_smallest_rank_that_keeps_the_energy(deltas: list[Tensor], energy: float):
    compressed = compress(DenseDelta(deltas[0]), energy=energy)
    assert compressed.kept >= energy - 1e-9
    if compressed.rank > 1:
        assert compress(DenseDelta(deltas[0]), compressed.rank - 1).kept < energy


def test_rank_takes_precedence_over_energy():
    (delta,) = gaussian((8, 8), 1)
    assert compress(DenseDelta(delta), rank=2, energy=0.99).rank == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_redundant_columns_of_factors_are_removed(dtype: torch.dtype):
    B, A = gaussian((40, 3), 1)[0].to(dtype), gaussian((3, 30), 1, seed=1)[0].to(dtype)
    padded = FactoredDelta(torch.cat([B, B], 1), torch.cat([A, A]))
    compressed = compress(padded)
    assert compressed.rank == 3
    assert relative_error(compressed.delta.to_dense(), 2 * B.double() @ A.double()) < 1e-6


def test_singular_values_are_split_equally_between_factors():
    compressed = compress(DenseDelta(gaussian((9, 7), 1)[0])).delta
    lengths = compressed.B.norm(dim=0), compressed.A.norm(dim=1)
    torch.testing.assert_close(*lengths)


def test_zero_delta_has_rank_zero():
    compressed = compress(DenseDelta(torch.zeros(4, 5)))
    assert compressed.rank == 0
    assert compressed.kept == 1
