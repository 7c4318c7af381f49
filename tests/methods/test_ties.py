"""Ties: entries that are equal up to rounding are decided by rules, not by rounding.

The definitions in `reference` state the rules. Each kind of delta in these tests has exact ties at
thresholds or in sign elections, or entries that are zero up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import relative_error
from support.matrices import gaussian
from support.merging import merge, merge_matrices
from support.tied_deltas import (
    IN,
    KINDS,
    OUT,
    T,
    factors_of_rank,
    factors_that_cancel,
    full,
    rank_1,
    sparse,
)
from torch import Tensor

from mergekit_spectral.spectral import DenseDelta, FactoredDelta
from mergekit_spectral.spectral.numerics import smaller_blocks

kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
directions = pytest.mark.parametrize("direction", ["horizontal", "vertical"])


def seeds(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test on a few random inputs."""
    few = settings(max_examples=settings.default.max_examples // 6)
    return few(given(seed=st.integers(0, 2**20))(test))


# (method, settings, definition)
DEFINED: dict[str, tuple[str, dict[str, Any], Callable[..., Tensor]]] = {
    "drm": ("drm", {}, reference.drm),
    "drm, half": ("drm", {"density": 0.5}, reference.drm),
    "knots_ties": ("knots_ties", {}, reference.knots_ties),
    "knots_ties, trimmed": ("knots_ties", {"density": 0.3}, reference.knots_ties),
    "knots_breadcrumbs": (
        "knots_breadcrumbs",
        {"density": 0.6, "gamma": 0.1},
        reference.knots_breadcrumbs,
    ),
}
defined = pytest.mark.parametrize("case", DEFINED.values(), ids=DEFINED)


@kinds
@defined
@directions
@seeds
def test_float64_agrees_with_the_definition(make, case, direction: str, seed: int):
    method, values, definition = case
    deltas = make(seed)
    actual = merge(deltas, method, direction=direction, **values)
    expected = definition(deltas, direction=direction, **values)
    assert relative_error(actual, expected) < 1e-9


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (make, dtype)
        for make in KINDS.values()
        for dtype in (torch.float32, torch.bfloat16)
        # Rounded to bfloat16, deltas of rank 1 have full rank and no ties.
        if (make, dtype) != (rank_1, torch.bfloat16)
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@defined
@directions
@seeds
def test_smaller_dtypes(make, case, direction: str, dtype: torch.dtype, seed: int):
    method, values, definition = case
    stored = [delta.to(dtype) for delta in make(seed)]
    actual = merge_matrices(
        [DenseDelta(delta) for delta in stored], method, direction=direction, **values
    )
    exact = [delta.double() for delta in stored]
    expected = definition(exact, direction=direction, **values)
    # Rows that are only float32's rounding noise are set to zero. Some rows of sparse deltas are
    # not much larger.
    assert relative_error(actual, expected) < (5e-3 if make is sparse else 1e-5)


@pytest.mark.parametrize("shape", [(1, 32), (32, 1), (OUT, IN)])
@defined
@directions
@seeds
def test_differences_of_float32_weights(shape: tuple[int, int], case, direction: str, seed: int):
    """The difference of two float32 weights cannot be represented exactly in float32."""
    method, values, definition = case
    base, *deltas = (0.02 * tensor.float() for tensor in gaussian(shape, T + 1, seed))
    tuned = [base + delta for delta in deltas]
    actual = merge_matrices(
        [DenseDelta(tensor, base) for tensor in tuned], method, direction=direction, **values
    )
    exact = [tensor.double() - base.double() for tensor in tuned]
    expected = definition(exact, direction=direction, **values)
    assert relative_error(actual, expected) < 1e-5


@defined
@directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("twins", [False, True])
@seeds
def test_factored_deltas_agree_with_the_definition(
    case, direction: str, dtype: torch.dtype, rank: int, twins: bool, seed: int
):
    method, values, definition = case
    stored = [(B.to(dtype), A.to(dtype)) for B, A in factors_of_rank(rank, seed)]
    if twins:
        stored[2] = stored[0]
    working = torch.float64 if dtype == torch.float64 else torch.float32
    actual = merge_matrices(
        [FactoredDelta(B.to(working), A.to(working)) for B, A in stored],
        method,
        direction=direction,
        **values,
    )
    exact = [B.double() @ A.double() for B, A in stored]
    expected = definition(exact, direction=direction, **values)
    assert relative_error(actual, expected) < 1e-5


@kinds
@defined
@directions
@seeds
def test_definitions_do_not_depend_on_rounding(make, case, direction: str, seed: int):
    """Inputs that differ by rounding errors give results that differ by rounding errors."""
    _, values, definition = case
    deltas = make(seed)
    noise = gaussian(tuple(deltas[0].shape), T, seed + 7)
    moved = [delta * (1 + 1e-15 * n) for delta, n in zip(deltas, noise, strict=True)]
    expected = definition(deltas, direction=direction, **values)
    assert relative_error(definition(moved, direction=direction, **values), expected) < 1e-9


@kinds
@defined
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@seeds
def test_order_of_inputs_has_no_effect(make, case, dtype: torch.dtype, seed: int):
    method, values, _ = case
    deltas = [delta.to(dtype) for delta in make(seed)]
    first, second, third = deltas
    expected = merge(deltas, method, **values)
    reordered = merge([third, first, second], method, **values)
    assert relative_error(reordered, expected) < (1e-9 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("method", ["drm", "knots_ties", "knots_breadcrumbs_ties"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_votes_that_cancel_up_to_rounding_elect_no_sign(method: str, dtype: torch.dtype):
    """0.1 + 0.2 - 0.3 is not exactly zero in floating point, in any order."""
    entries = torch.tensor([1.0, -1.0, 0.5], dtype=dtype)
    inputs = [entries, entries, -entries]
    weights = [0.1, 0.2, 0.3]
    assert not merge(inputs, method, weight=weights).any()
    assert not merge(inputs[::-1], method, weight=weights[::-1]).any()


@pytest.mark.parametrize("method", ["drm", "knots_ties"])
def test_votes_that_nearly_cancel_elect_the_sign_of_their_exact_sum(method: str):
    """In float32, 1 + 1e-8 is 1. The exact sum of the votes has the sign of 1e-8 in any order."""
    inputs = [torch.tensor([value, -value]) for value in (1.0, 1e-8, -1.0)]
    expected = torch.tensor([1.0, -1.0]) * (1 + 1e-8) / 2
    for order in (inputs, inputs[::-1], [inputs[0], inputs[2], inputs[1]]):
        torch.testing.assert_close(merge(order, method), expected, rtol=1e-6, atol=0)


@given(
    density=st.sampled_from([0.25, 0.5, 0.75]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_entries_equal_to_the_threshold_are_all_kept(density: float, dtype: torch.dtype):
    entries = torch.tensor([[1.0, 2.0, -2.0, 2.0, 3.0, -2.0, 0.5, 4.0]], dtype=dtype)
    kept = merge([entries, entries], "knots_ties", density=density)
    limit = {0.25: 3.0, 0.5: 2.0, 0.75: 2.0}[density]
    assert torch.equal(kept != 0, entries.abs() >= limit)


def hadamard(size: int) -> Tensor:
    """Return a matrix of ±1 with orthogonal rows, [size, size]. `size` must be a power of 2."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["drm", "drm, half", "knots_ties", "knots_ties, trimmed"])
def test_sparse_deltas_with_a_threshold_of_zero(name: str, dtype: torch.dtype):
    """More entries are to be kept than are not zero, so most entries equal the threshold."""
    case = DEFINED[name]
    method, values, definition = case
    masks = torch.rand(T, 128, 128, generator=torch.Generator().manual_seed(9)) < 0.005
    deltas = [d.to(dtype) * m for d, m in zip(gaussian((128, 128), T), masks, strict=True)]
    actual = merge_matrices([DenseDelta(delta) for delta in deltas], method, **values)
    assert relative_error(actual, definition([d.double() for d in deltas], **values)) < 5e-4


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1.0, 1e24, 1e30])
@pytest.mark.parametrize("divisor", [1, 1 << 24])
def test_thousands_of_ties(size: float, divisor: int):
    """Each row of the coordinates of these adapters, of rank 1, has entries of equal magnitude."""
    (lefts,) = gaussian((T, 40, 1), 1)
    rights = [row.sign() for row in gaussian((1, 512), T, 1)]
    deltas = [size * B.float() @ A.float() for B, A in zip(lefts, rights, strict=True)]
    with smaller_blocks(divisor):
        actual = merge_matrices([DenseDelta(delta) for delta in deltas], "drm")
    expected = reference.drm([delta.double() for delta in deltas])
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("divisor", [1, 1 << 24])
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_ties_at_the_end_of_the_sampled_bracket(divisor: int, density: float):
    """All renormalized entries are equal. Rounding puts some below and some above the sample."""
    s = torch.arange(1, 33, dtype=torch.float64)[:, None]
    H = hadamard(64)
    deltas = [hadamard(32) @ (s * H[start : start + 32]) for start in (0, 32)]
    with smaller_blocks(divisor):
        actual = merge_matrices(
            [DenseDelta(delta.float()) for delta in deltas], "drm", density=density
        )
    assert relative_error(actual, reference.drm(deltas, density=density)) < 1e-5


@pytest.mark.parametrize("method", ["drm", "knots_ties"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sum_is_not_divided_by_weights_that_cancel_up_to_rounding(method: str, dtype: torch.dtype):
    deltas = [delta.to(dtype) for delta in full(3)]
    weights = [0.1, 0.2, -0.3]
    actual = merge(deltas, method, weight=weights)
    reordered = merge([deltas[1], deltas[2], deltas[0]], method, weight=[0.2, -0.3, 0.1])
    definition = {"drm": reference.drm, "knots_ties": reference.knots_ties}[method]
    expected = definition([delta.double() for delta in deltas], weights=weights)
    assert relative_error(actual, expected) < 1e-5
    assert relative_error(reordered, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["knots_ties", "knots_breadcrumbs"])
def test_input_without_kept_entries_does_not_change_ties_of_others(method: str, dtype: torch.dtype):
    first, *others = ((B @ A.sign()).to(dtype) for B, A in factors_of_rank(1, 5))

    def merged(C: list[Tensor]) -> Tensor:
        if method == "knots_ties":
            return reference.elect_and_average([0 * C[0], *(reference.trim(c, 0.3) for c in C[1:])])
        return torch.stack([reference.trim_outliers(c, 0.3, 0.01) for c in C[1:]]).sum(0)

    deltas = [delta.double() for delta in (first, *others)]
    expected = reference.in_joint_basis(deltas, merged, "horizontal", 1e-5)
    actual = merge([first, *others], method, density=[0.0, 0.3, 0.3])
    assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("method", ["knots_ties", "drm"])
def test_factors_that_cancel(size: float, method: str):
    factors = factors_that_cancel(size)
    deltas = [FactoredDelta(B, A).without_cancellation() for B, A in factors]
    exact = [B.double() @ A.double() for B, A in factors]
    definition = {"drm": reference.drm, "knots_ties": reference.knots_ties}[method]
    assert relative_error(merge_matrices(deltas, method), definition(exact)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_star_does_not_count_rounding_noise_as_singular_values(dtype: torch.dtype):
    """The singular values are 5, 4 and 1. The first is exactly half of the sum, so it is enough."""
    H = hadamard(32)
    delta = (H[:, [1, 2, 4]] * torch.tensor([5.0, 4.0, 1.0])) @ H[:, [3, 7, 9]].T
    actual = merge_matrices([DenseDelta(delta.to(dtype))], "star", eta=50.0)
    assert relative_error(actual, reference.star([delta], eta=50.0)) < 1e-5


def test_star_counts_sums_that_reach_the_share_up_to_rounding():
    """Five of ten equal singular values are half of the nuclear norm, up to rounding."""
    s = torch.full((10,), 0.1, dtype=torch.float64)
    assert torch.linalg.matrix_rank(reference.truncate(s.diag(), 50)) == 5
    assert torch.linalg.matrix_rank(merge([s.diag()], "star", eta=50)) == 5
