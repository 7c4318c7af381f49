"""Sign election, disjoint mean and weighted mean."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import disjoint_mean, mean_weights, weighted_mean


@given(delta_groups(), st.lists(st.floats(-2, 2), min_size=4, max_size=4), st.booleans())
def test_disjoint_mean_agrees_with_the_definition(
    tensors: list[Tensor], weights: list[float], normalize: bool
):
    weights = weights[: len(tensors)]
    actual = disjoint_mean(tensors, weights, normalize)
    expected = reference.elect_and_average(tensors, weights, normalize)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_disjoint_mean_of_values_computed_by_hand():
    a = torch.tensor([3.0, -1.0, 0.0, 2.0])
    b = torch.tensor([1.0, -3.0, 2.0, -2.0])
    c = torch.tensor([-1.0, 1.0, 0.0, 0.0])
    mean = disjoint_mean([a, b, c], [1.0, 1.0, 1.0])
    assert mean.tolist() == [2.0, -2.0, 2.0, 0.0]
    total = disjoint_mean([a, b, c], [1.0, 1.0, 1.0], normalize=False)
    assert total.tolist() == [4.0, -4.0, 2.0, 0.0]


@given(delta_groups(min_inputs=2))
def test_flipping_signs_of_rows_flips_the_mean(tensors: list[Tensor]):
    """Singular vectors have arbitrary signs, which flip rows of the coordinates."""
    flips = torch.tensor([1.0, -1.0]).repeat(6)[: len(tensors[0]), None]
    weights = [1.0] * len(tensors)
    flipped = disjoint_mean([flips * t for t in tensors], weights)
    assert torch.equal(flipped, flips * disjoint_mean(tensors, weights))


def test_weighted_mean():
    a, b = gaussian((3, 4), 2)
    torch.testing.assert_close(weighted_mean([a, b], [1.0, 3.0]), (a + 3 * b) / 4)
    torch.testing.assert_close(weighted_mean([a, b], [1.0, 3.0], False), a + 3 * b)


def test_weights_that_cancel_are_not_divided_by():
    assert mean_weights([1.0, -1.0]) == [1.0, -1.0]
    assert mean_weights([0.0, 0.0]) == [0.0, 0.0]


@pytest.mark.parametrize("size", [1e-300, 1e-9, 1e9, 1e38])
def test_magnitude_of_weights_has_no_effect(size: float):
    assert mean_weights([size, 3 * size]) == pytest.approx([0.25, 0.75])
    assert mean_weights([size, -size]) == [size, -size]
    assert mean_weights([size, size * (1e-12 - 1)]) == [size, size * (1e-12 - 1)]
