"""`rank`: no more than a number of joint directions are kept."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.merge_methods import registered_methods
from reference import relative_error
from support.matrices import SPECTRA, delta_groups, gaussian, orthogonal, with_spectrum
from support.merging import merge, merge_matrices
from torch import Tensor

from mergekit_spectral.methods import KnOTS, SpectralMethod
from mergekit_spectral.methods.parameters import most_directions
from mergekit_spectral.spectral import DenseDelta, FactoredDelta, leading

DEFINED = {"drm": reference.drm, "knots_ties": reference.knots_ties}
JOINT = ["drm", *(m.spec.name for m in registered_methods() if isinstance(m, KnOTS))]
defined = pytest.mark.parametrize("method", DEFINED)
directions = pytest.mark.parametrize("direction", ["horizontal", "vertical"])
ranks = st.one_of(st.integers(1, 12), st.floats(0.05, 1))


def test_methods_with_a_joint_basis_have_it():
    methods = [m for m in registered_methods() if isinstance(m, SpectralMethod)]
    have = {m.spec.name for m in methods if "rank" in (p.name for p in m.spec.parameters)}
    assert have == set(JOINT)


@pytest.mark.parametrize(
    ("rank", "side", "most"),
    [
        (None, 40, 40),
        (1, 40, 1),
        (1.0, 40, 40),
        (100, 40, 100),
        (0.25, 40, 10),
        (0.26, 40, 11),
        (0.001, 40, 1),
        (0.1, 30, 3),  # 0.1 · 30 > 3 in floating point
        (16.0, 40, 16),
        (16.5, 40, 17),  # between two numbers of a gradient
        (1e-300, 1, 1),
    ],
)
def test_numbers_and_shares(rank: float | None, side: int, most: int):
    assert most_directions(rank, side) == most


@defined
@directions
@given(deltas=delta_groups(), rank=ranks)
def test_agrees_with_the_definition(method: str, direction: str, deltas: list[Tensor], rank: float):
    settings: dict[str, Any] = {"rank": rank, "direction": direction, "density": 1.0}
    actual = merge(deltas, method, **settings)
    assert relative_error(actual, DEFINED[method](deltas, **settings)) < 1e-8


@defined
@given(seed=st.integers(0, 1000), rank=st.integers(1, 6))
def test_pruning_counts_the_entries_of_kept_directions(method: str, seed: int, rank: int):
    deltas = gaussian((6, 9), 3, seed)
    actual = merge(deltas, method, rank=rank, density=0.4)
    assert relative_error(actual, DEFINED[method](deltas, rank=rank, density=0.4)) < 1e-8
    assert torch.linalg.matrix_rank(actual) <= rank


@pytest.mark.parametrize("method", JOINT)
@pytest.mark.parametrize("rank", [1.0, 9, 10**6, 1e9])
def test_a_limit_that_is_not_reached_has_no_effect(method: str, rank: float):
    deltas = gaussian((8, 6), 3)
    merged = []
    for chosen in (None, rank):
        torch.manual_seed(0)
        merged.append(merge(deltas, method, rank=chosen, density=0.5))
    assert torch.equal(*merged)


def test_task_arithmetic_projects_onto_the_leading_directions():
    deltas = gaussian((8, 6), 3)
    U = torch.linalg.svd(torch.cat(deltas, dim=1)).U[:, :3]
    projected = U @ U.T @ sum(deltas)
    merged = merge(deltas, "knots_task_arithmetic", rank=3)
    assert relative_error(merged, projected) < 1e-9


@defined
@directions
@pytest.mark.parametrize("rank", [3, 0.2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_factored_deltas_agree_with_the_definition(
    method: str, direction: str, rank: float, dtype: torch.dtype
):
    factors = [
        (B.to(dtype), A.to(dtype))
        for B, A in zip(gaussian((20, 4), 3), gaussian((4, 30), 3, seed=1), strict=True)
    ]
    settings: dict[str, Any] = {"rank": rank, "direction": direction, "density": 0.5}
    merged = merge_matrices([FactoredDelta(B, A) for B, A in factors], method, **settings)
    expected = DEFINED[method]([B.double() @ A.double() for B, A in factors], **settings)
    assert relative_error(merged, expected) < (1e-8 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96, 128), (192, 48)])
@pytest.mark.parametrize("rank", [0.5, 0.25, 0.125])
def test_accuracy_on_real_spectra(
    kind: str, dtype: torch.dtype, shape: tuple[int, int], rank: float
):
    """Within 1e-3 of the float64 definition on the same input values."""
    (base,) = (0.02 * gaussian(shape, 1, seed=77)[0]).to(dtype).unsqueeze(0)
    inputs = [(base.double() + delta).to(dtype) for delta in with_spectrum(kind, shape, 3)]
    exact = [tensor.double() - base.double() for tensor in inputs]
    for method, definition in DEFINED.items():
        merged = merge_matrices(
            [DenseDelta(tensor, base) for tensor in inputs], method, rank=rank, density=0.5
        )
        assert relative_error(merged, definition(exact, rank=rank, density=0.5)) < 1e-3


EQUAL_VALUES = torch.tensor([4.0] + [2.0] * 4 + [1.0] * 90, dtype=torch.float64)


def with_equal_values(factored: bool) -> tuple[Tensor, list[DenseDelta | FactoredDelta]]:
    """Return a matrix whose singular values are EQUAL_VALUES, and the matrix as one delta."""
    n = len(EQUAL_VALUES)
    B, A = orthogonal(n, 1) * EQUAL_VALUES, orthogonal(n, 2)
    return B @ A, [FactoredDelta(B, A) if factored else DenseDelta(B @ A)]


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize(("rank", "kept"), [(1, 1), (2, 5), (4, 5), (5, 5), (6, 95)])
def test_equal_singular_values_are_kept_together(factored: bool, rank: int, kept: int):
    matrix, deltas = with_equal_values(factored)
    merged = merge_matrices(deltas, "knots_task_arithmetic", rank=rank)
    assert torch.linalg.matrix_rank(merged, rtol=1e-6) == kept
    U = orthogonal(len(matrix), 1)[:, :kept]
    assert relative_error(merged, U @ U.T @ matrix) < 1e-9


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_equal_values_through_a_gram_matrix(direction: str):
    """A permutation of few entries has singular values that are exact, and equal, in float32."""
    order = torch.randperm(96, generator=torch.Generator().manual_seed(3))
    sizes = torch.tensor([4.0] + [2.0] * 40 + [1.0] * 55)
    matrix = torch.zeros(96, 96)
    matrix[torch.arange(96), order] = sizes
    merged = merge_matrices(
        [DenseDelta(matrix)], "knots_ties", rank=10, density=1.0, direction=direction
    )
    torch.testing.assert_close(merged, matrix * (matrix >= 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "limit", "kept"),
    [
        ([3.0, 2.0, 1.0], 2, 2),
        ([3.0, 2.0, 2.0], 2, 3),
        ([3.0, 2.0, 2.0 - 1e-9], 2, 3),
        ([3.0, 2.0, 2.0 - 1e-8], 2, 2),
        ([3.0, 2.0], 5, 2),
        ([3.0, 3.0, 3.0], 1, 3),
    ],
)
def test_values_that_are_equal_up_to_rounding(values: list[float], limit: int, kept: int):
    assert leading(limit, len)(torch.tensor(values, dtype=torch.float64)) == kept


def test_equal_values_below_the_tolerance_are_left_out():
    values = torch.tensor([3.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    assert leading(2, lambda _: 3)(values) == 3
    assert leading(2, lambda _: 1)(values) == 1


def test_a_change_of_nothing_stays_nothing():
    zero = torch.zeros(80, 90)
    assert not merge_matrices([DenseDelta(zero)] * 2, "drm", rank=4).any()
