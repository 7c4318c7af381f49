from __future__ import annotations

import pytest
import torch
from matrices import gaussian

from mergekit_spectral.spectral import Delta, DenseDelta, FactoredDelta, linear_combination


@pytest.fixture
def factored() -> FactoredDelta:
    return FactoredDelta(gaussian((7, 3), 1)[0], gaussian((3, 5), 1, seed=1)[0])


@pytest.fixture(params=["dense", "factored"])
def delta(request: pytest.FixtureRequest, factored: FactoredDelta) -> Delta:
    return factored if request.param == "factored" else DenseDelta(factored.B @ factored.A)


def test_both_types_are_the_same_matrix(delta: Delta, factored: FactoredDelta):
    D = factored.B @ factored.A
    (basis,) = gaussian((7, 2), 1, seed=2)
    base = gaussian((7, 5), 1, seed=3)[0].float()
    assert delta.shape == (7, 5)
    assert delta.T.shape == (5, 7)
    torch.testing.assert_close(delta.to_dense(), D)
    torch.testing.assert_close(delta.T.to_dense(), D.T)
    torch.testing.assert_close(delta.project(basis), basis.T @ D)
    torch.testing.assert_close(delta.added_to(base, 0.5), base.double() + 0.5 * D)


def test_linear_combination_stays_factored(factored: FactoredDelta):
    other = FactoredDelta(gaussian((7, 2), 1, seed=4)[0], gaussian((2, 5), 1, seed=5)[0])
    combined = linear_combination([factored, other], [2.0, -1.0])
    assert combined.B.shape == (7, 5)
    torch.testing.assert_close(combined.to_dense(), 2 * factored.to_dense() - other.to_dense())
