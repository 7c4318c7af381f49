"""Dense and factored deltas: the same operations, with the same results."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support.matrices import gaussian

from mergekit_spectral.spectral import Delta, DenseDelta, FactoredDelta, linear_combination
from mergekit_spectral.spectral.numerics import smaller_blocks


@pytest.fixture
def factored() -> FactoredDelta:
    return FactoredDelta(gaussian((7, 3), 1)[0], gaussian((3, 5), 1, seed=1)[0])


@pytest.fixture(params=["dense", "factored"])
def delta(request: pytest.FixtureRequest, factored: FactoredDelta) -> Delta:
    return factored if request.param == "factored" else DenseDelta(factored.B @ factored.A)


def test_both_types_give_the_same_results(delta: Delta, factored: FactoredDelta):
    D = factored.B @ factored.A
    (basis,) = gaussian((7, 2), 1, seed=2)
    base = gaussian((7, 5), 1, seed=3)[0].float()
    assert delta.shape == (7, 5)
    assert delta.T.shape == (5, 7)
    torch.testing.assert_close(delta.to_dense(), D)
    torch.testing.assert_close(delta.T.to_dense(), D.T)
    torch.testing.assert_close(delta.project(basis), basis.T @ D)
    torch.testing.assert_close(delta.added_to(base, 0.5), base.double() + 0.5 * D)


def test_scaled_deltas_and_rows(delta: Delta):
    D = delta.to_dense()
    torch.testing.assert_close(delta.scaled(-2.0).to_dense(), -2 * D)
    torch.testing.assert_close(delta.rows(slice(2, 5)).to_dense(), D[2:5])
    assert not delta.is_zero()
    assert delta.scaled(0.0).is_zero()


@pytest.mark.parametrize("divisor", [1, 1 << 18, 1 << 30])
def test_adding_in_blocks(delta: Delta, divisor: int):
    base = gaussian((7, 5), 1, seed=3)[0].bfloat16()
    expected = (base.double() + 0.5 * delta.to_dense()).bfloat16()
    with smaller_blocks(divisor):
        delta.add_to(base, 0.5, out=base)
    assert torch.equal(base, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("divisor", [1, 1 << 18, 1 << 30])
def test_difference_in_blocks(dtype: torch.dtype, transposed: bool, divisor: int):
    tuned, base = (matrix.to(dtype) for matrix in gaussian((20, 28), 2))
    (basis,) = gaussian((20, 3), 1, seed=1)
    delta = (
        DenseDelta(tuned.T.contiguous(), base.T.contiguous()).T
        if transposed
        else DenseDelta(tuned, base)
    )
    D = tuned.to(delta.dtype) - base.to(delta.dtype)
    basis = basis.to(delta.dtype)
    with smaller_blocks(divisor):
        blocks = {columns.start: block.clone() for columns, block in delta.dense_columns()}
        assert torch.equal(torch.cat(list(blocks.values()), dim=1), D)
        torch.testing.assert_close(delta.project(basis), basis.T @ D)
        assert delta.norm == pytest.approx(float(D.norm()))
    assert torch.equal(delta.to_dense(), D)
    assert not delta.is_zero()
    assert DenseDelta(tuned, tuned.clone()).is_zero()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_base", [True, False])
@pytest.mark.parametrize("divisor", [1, 1 << 30])
def test_scaled_difference_in_float64(dtype: torch.dtype, with_base: bool, divisor: int):
    tuned, base = (matrix.to(dtype) for matrix in gaussian((6, 8), 2))
    (basis,) = gaussian((6, 3), 1, seed=1)
    D = -0.3 * (tuned.double() - base.double() if with_base else tuned.double())
    plain = DenseDelta(tuned, base if with_base else None)
    rows, columns = torch.tensor([0, 2, 2]), torch.tensor([1, 1, 7])
    with smaller_blocks(divisor):
        for delta in (plain.scaled(-0.6).in_float64().scaled(0.5), plain.in_float64().scaled(-0.3)):
            assert delta.dtype == torch.float64
            assert delta.tuned is tuned
            close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
            close(delta.to_dense(), D)
            close(torch.cat([block.clone() for _, block in delta.dense_columns()], dim=1), D)
            close(delta.T.to_dense(), D.T)
            close(delta.rows(slice(1, 4)).to_dense(), D[1:4])
            close(delta.columns(columns).to_dense(), D[:, columns])
            close(delta.project(basis), basis.T @ D)
            close(delta.projected_at(basis, rows, columns), (basis.T @ D)[rows, columns])
            close(delta.projected_lengths(basis, rows[:2]), (basis.T @ D)[rows[:2]].norm(dim=1))
            close(delta.column_norms, D.norm(dim=0))
            close(torch.stack([m.to_dense() for m in delta.matrices((2, 3, 8))]), D.view(2, 3, 8))
            close(delta.added_to(base, 2.0), base.double() + 2 * D)
            close(linear_combination([delta, delta], [1.0, 0.5]).to_dense(), 1.5 * D)
            assert not delta.is_zero()
            assert delta.scaled(0.0).is_zero()
            assert not delta.scaled(0.0).to_dense().any()


def test_scaled_difference_keeps_its_working_dtype():
    tuned, base = (matrix.bfloat16() for matrix in gaussian((6, 8), 2))
    delta = DenseDelta(tuned, base).scaled(3.0)
    assert delta.dtype == delta.T.dtype == delta.to_dense().dtype == torch.float32
    torch.testing.assert_close(delta.to_dense(), 3 * (tuned.float() - base.float()))
    assert DenseDelta(tuned, tuned.clone()).scaled(3.0).is_zero()


def test_factors_in_float64(factored: FactoredDelta):
    rounded = FactoredDelta(factored.B.float(), factored.A.float())
    assert rounded.in_float64().dtype == torch.float64
    assert torch.equal(rounded.in_float64().to_dense(), rounded.B.double() @ rounded.A.double())


def low_rank(shape: tuple[int, int], rank: int, count: int) -> list[FactoredDelta]:
    out_features, in_features = shape
    left, right = (
        gaussian((out_features, rank), count),
        gaussian((rank, in_features), count, seed=1),
    )
    return [FactoredDelta(B, A) for B, A in zip(left, right, strict=True)]


@pytest.mark.parametrize(
    ("rank", "kind"), [(0, FactoredDelta), (2, FactoredDelta), (5, DenseDelta)]
)
def test_linear_combination_uses_the_smaller_representation(rank: int, kind: type[Delta]):
    deltas = low_rank((20, 28), rank, 3)
    weights = [2.0, -1.0, 0.5]
    combined = linear_combination(iter(deltas), weights)
    expected = sum(w * delta.to_dense() for w, delta in zip(weights, deltas, strict=True))
    assert isinstance(combined, kind)
    torch.testing.assert_close(combined.to_dense(), expected)


def test_linear_combination_of_dense_deltas_and_factors():
    factored = low_rank((20, 28), 2, 2)
    tuned, base = gaussian((20, 28), 2, seed=7)
    deltas = [factored[0], DenseDelta(tuned, base), factored[1]]
    weights = [2.0, -1.0, 0.5]
    combined = linear_combination(iter(deltas), weights)
    expected = sum(w * delta.to_dense() for w, delta in zip(weights, deltas, strict=True))
    assert isinstance(combined, DenseDelta)
    torch.testing.assert_close(combined.to_dense(), expected)


def test_norm_if_squares_are_out_of_float32s_range():
    delta = DenseDelta(torch.full((3, 4), 1e30))
    assert delta.norm == pytest.approx(12**0.5 * 1e30)


@pytest.mark.parametrize("count", [1, 5, 200])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_single_entries_of_few_and_of_many_columns(
    count: int, transposed: bool, dtype: torch.dtype
):
    """In many columns they are computed in the order of the columns, and must come back in ours."""
    tuned, base = (matrix.to(dtype) for matrix in gaussian((12, 100), 2))
    delta = DenseDelta(tuned, base)
    delta = DenseDelta(tuned.T.contiguous(), base.T.contiguous()).T if transposed else delta
    basis = gaussian((12, 4), 1, seed=2)[0].float()
    generator = torch.Generator().manual_seed(count)
    rows, columns = (torch.randint(n, (count,), generator=generator) for n in (4, 100))
    expected = (basis.double().T @ (tuned.double() - base.double()))[rows, columns]
    for divisor in (1, 1 << 17):
        with smaller_blocks(divisor):
            actual = delta.projected_at(basis, rows, columns)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
