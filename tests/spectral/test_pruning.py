from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import prune


@given(delta_groups(), st.floats(0.01, 1.0))
def test_common_density(tensors: list[Tensor], density: float):
    pruned = prune(tensors, [density] * len(tensors))
    for actual, expected in zip(pruned, reference.prune(tensors, density), strict=True):
        assert torch.equal(actual, expected)


@given(delta_groups(min_inputs=2, max_inputs=2), st.floats(0.01, 0.5), st.floats(0.51, 1.0))
def test_densities_of_their_own(tensors: list[Tensor], low: float, high: float):
    pruned = prune(tensors, [low, high])
    for actual, expected in zip(pruned, reference.prune(tensors, [low, high]), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(("density", "kept"), [(1.0, 60), (0.5, 31), (0.2, 13), (1e-9, 1)])
def test_number_of_kept_entries(density: float, kept: int):
    """Strictly below the j-th smallest, j = N − round(N·p): the j-th smallest itself stays."""
    tensors = gaussian((5, 4), 3)
    assert sum(int((t != 0).sum()) for t in prune(tensors, [density] * 3)) == kept


def test_inputs_are_left_alone():
    tensors = gaussian((5, 4), 2)
    copies = [tensor.clone() for tensor in tensors]
    prune(tensors, [0.2, 0.2])
    assert all(torch.equal(t, c) for t, c in zip(tensors, copies, strict=True))
