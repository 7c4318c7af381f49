"""Bases that several deltas share: against the definition, and what follows from it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import projected_onto_shared_bases, relative_error
from support.matrices import gaussian, orthogonal
from torch import Tensor

from mergekit_spectral.spectral import FactoredDelta, shared_bases


def factored(
    shape: tuple[int, int], ranks: list[int], seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[FactoredDelta]:
    """Return random deltas of the given ranks, each ten times as large as the one before."""
    return [
        FactoredDelta(
            10**i * gaussian((shape[0], rank), 1, seed + i)[0].to(dtype),
            gaussian((rank, shape[1]), 1, seed + i + 100)[0].to(dtype),
        )
        for i, rank in enumerate(ranks)
    ]


def triples(shape: tuple[int, int], *values: float) -> list[FactoredDelta]:
    """Return deltas of rank 1 with these singular values, orthogonal to one another."""
    U, V = orthogonal(shape[0], 1), orthogonal(shape[1], 2)
    return [FactoredDelta(s * U[:, i : i + 1], V[:, i : i + 1].T) for i, s in enumerate(values)]


def projected(deltas: list[FactoredDelta], weights: list[float], rank: int) -> list[Tensor]:
    bases = shared_bases(deltas, weights, rank)
    return [bases.project(delta).to_dense() for delta in deltas]


@given(
    shape=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    ranks=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    rank=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**20),
)
def test_agrees_with_the_definition(
    shape: tuple[int, int], ranks: list[int], rank: int, dtype: torch.dtype, seed: int
):
    deltas = factored(shape, ranks, seed, dtype)
    weights = [1.0, -0.5, 2.0, 1.0][: len(ranks)]
    dense = [delta.B.double() @ delta.A.double() for delta in deltas]
    expected, kept = projected_onto_shared_bases(dense, rank, weights)
    bases = shared_bases(deltas, weights, rank)
    assert bases.kept == pytest.approx(kept, abs=1e-9)
    for delta, own in zip(deltas, expected, strict=True):
        assert relative_error(bases.project(delta).to_dense(), own) < 1e-6


def test_all_directions_of_all_deltas_are_kept_where_the_rank_allows_it():
    deltas = factored((20, 15), [2, 3, 1])
    bases = shared_bases(deltas, [1, 1, 1], 9)
    assert bases.left.shape == (20, 6)
    assert bases.right.shape == (15, 6)
    assert bases.kept == pytest.approx(1)
    for delta in deltas:
        assert relative_error(bases.project(delta).to_dense(), delta.to_dense()) < 1e-12


def test_bases_are_orthonormal():
    bases = shared_bases(factored((20, 15), [4, 4, 4]), [1, 1, 1], 5)
    for basis in (bases.left, bases.right):
        torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64))


def test_scale_of_a_delta_has_no_effect_on_the_bases():
    deltas = factored((20, 15), [4, 4, 4])
    before = shared_bases(deltas, [1, 1, 1], 5)
    after = shared_bases([deltas[0].scaled(1e6), *deltas[1:]], [1, 1, 1], 5)
    assert relative_error(after.left @ after.left.T, before.left @ before.left.T) < 1e-6


def test_small_delta_keeps_as_much_of_itself_as_a_large_one():
    """The truncated SVD of their sum would drop the small one."""
    deltas = factored((60, 50), [4, 4])
    kept = [
        float(own.norm() / delta.to_dense().norm()) ** 2
        for own, delta in zip(projected(deltas, [1, 1], 4), deltas, strict=True)
    ]
    assert min(kept) > 0.3
    assert sum(kept) / 2 == pytest.approx(shared_bases(deltas, [1, 1], 4).kept)


def test_weights_count():
    deltas = triples((9, 8), 1.0, 1.0)
    assert [float(d.norm()) > 0.5 for d in projected(deltas, [1, 2], 1)] == [False, True]
    assert [float(d.norm()) > 0.5 for d in projected(deltas, [-2, 1], 1)] == [True, False]
    assert shared_bases(deltas, [1, 0], 2).left.shape == (9, 1)


@pytest.mark.parametrize("order", [(3.0, 2.0, 1.0), (1.0, 2.0, 3.0), (2.0, 3.0, 1.0)])
def test_larger_delta_is_kept_if_directions_keep_equally_much(order: tuple[float, ...]):
    """Each direction is the whole of one delta: only their sizes differ."""
    lengths = [float(own.norm()) for own in projected(triples((9, 8), *order), [1, 1, 1], 2)]
    assert lengths == pytest.approx([s if s > 1 else 0 for s in order], abs=1e-6)


def test_zero_deltas():
    (delta,) = factored((6, 5), [2])
    nothing = FactoredDelta(torch.zeros(6, 0).double(), torch.zeros(0, 5).double())
    bases = shared_bases([nothing, delta, delta.scaled(0)], [1, 1, 1], 2)
    assert relative_error(bases.project(delta).to_dense(), delta.to_dense()) < 1e-12
    assert bases.kept == pytest.approx(1)
    assert shared_bases([nothing], [1], 2).left.shape == (6, 0)
    assert shared_bases([delta], [0], 2).kept == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_delta_outside_the_bases_is_exactly_zero(dtype: torch.dtype):
    """Else tsvm would take the directions of its rounding errors for those of an input."""
    deltas = [FactoredDelta(d.B.to(dtype), d.A.to(dtype)) for d in triples((9, 8), 3.0, 2.0, 1.0)]
    kept = [own for own in projected(deltas, [1, 1, 1], 1) if own.any()]
    assert len(kept) == 1
