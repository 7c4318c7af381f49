"""LoRA inputs: the same merge as for dense inputs, without tensors of the weight's size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.merge_methods import get
from mergekit.merge_methods.base import TensorGroup
from reference import DEFINITIONS, relative_error
from support.largest import LargestTensor
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor, Update
from mergekit_spectral.methods import MergeError
from mergekit_spectral.methods.task_deltas import task_deltas
from mergekit_spectral.spectral import FactoredDelta

defined = pytest.mark.parametrize("method", DEFINITIONS)
SCALE = 0.25


def unreadable() -> Tensor:
    raise AssertionError("the base's weight was read for an input")


def on_base(base: Tensor, update: Update) -> AdaptedTensor:
    """Return an adapter on the group's base. Reading its copy of the base's weight is an error."""
    return AdaptedTensor(unreadable, 0, update, SCALE, base.shape, base.dtype, base.device)


def on(other: Tensor, update: Update) -> AdaptedTensor:
    """Return an adapter on another base."""
    return AdaptedTensor(lambda: other, "b", update, SCALE, other.shape, other.dtype, other.device)


def random(
    *shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def group_of(base: Tensor, *inputs: Tensor, axis: int | None = None) -> TensorGroup:
    return TensorGroup.from_tensors(
        [base, *inputs], base_index=0, name="x.weight", vocabulary_axis=axis
    )


def merge(method: str, group: TensorGroup, **parameters: Any) -> Tensor:
    return get(method)((group,), parameters=parameters)[0]


@defined
@given(
    out=st.integers(4, 12),
    rest=st.integers(4, 12),
    # Not rank 1: its coordinates can have equal magnitudes, and DRM may prune either of them.
    ranks=st.lists(st.integers(2, 4), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_merge_agrees_with_the_definition(
    method: str, out: int, rest: int, ranks: list[int], seed: int
):
    base, *factors = random(
        (out, rest), *(s for r in ranks for s in [(out, r), (r, rest)]), seed=seed
    )
    pairs = list(zip(factors[::2], factors[1::2], strict=True))
    merged = merge(method, group_of(base, *(on_base(base, pair) for pair in pairs)))
    expected = DEFINITIONS[method]([SCALE * B @ A for B, A in pairs])
    assert relative_error(merged - base, expected) < 1e-6


@defined
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_of_factors_are_used_without_rounding(method: str, dtype: torch.dtype):
    """The base is zero, so the result is the merged update of factors in half precision."""
    factors = random((64, 8), (8, 96), (64, 4), (4, 96), dtype=dtype)
    base = torch.zeros(64, 96)
    pairs = list(zip(factors[::2], factors[1::2], strict=True))
    merged = merge(method, group_of(base, *(on_base(base, pair) for pair in pairs)))
    expected = DEFINITIONS[method]([SCALE * B.double() @ A.double() for B, A in pairs])
    assert relative_error(merged, expected) < 1e-5


@defined
def test_factored_and_dense_and_unchanged_inputs_together(method: str):
    base, B, A, tuned, other, C, D = random((6, 9), (6, 2), (2, 9), (6, 9), (6, 9), (6, 3), (3, 9))
    group = group_of(base, on_base(base, (B, A)), tuned, on_base(base, ()), on(other, (C, D)))
    deltas = [SCALE * B @ A, tuned - base, torch.zeros(6, 9), other - base + SCALE * C @ D]
    if method == "knots_ties":  # in its definition, the rounding noise of a zero input votes
        del deltas[2]
    assert relative_error(merge(method, group) - base, DEFINITIONS[method](deltas)) < 1e-6


@defined
def test_convolution(method: str):
    base, B, A, C, D = random((6, 2, 3, 2), (6, 2), (2, 12), (6, 3), (3, 12))
    merged = merge(method, group_of(base, on_base(base, (B, A)), on_base(base, (C, D))))
    expected = DEFINITIONS[method]([SCALE * B @ A, SCALE * C @ D]).view(base.shape)
    assert relative_error(merged - base, expected) < 1e-6


def test_bias():
    base, one, two = random((7,), (7,), (7,))
    group = group_of(base, on_base(base, (one,)), on_base(base, (two,)), on_base(base, ()))
    expected = base + SCALE * (one + two) / 3
    torch.testing.assert_close(merge("star", group), expected)


@pytest.mark.parametrize("shape", [(), (5,), (5, 6), (3, 5, 6), (5, 2, 3, 3)], ids=str)
def test_weight_that_no_adapter_changes_is_the_bases(shape: tuple[int, ...]):
    (base,) = random(shape, dtype=torch.bfloat16)
    assert merge("drm", group_of(base, on_base(base, ()), on_base(base, ()))) is base


@defined
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_number_of_large_tensors_does_not_depend_on_the_inputs(method: str, dtype: torch.dtype):
    """More inputs do not need more tensors of the weight's size."""
    size, rank = 384, 2
    counts = []
    for inputs in (1, 6):
        base, *factors = random((size, size), *[(size, rank), (rank, size)] * inputs, dtype=dtype)
        pairs = zip(factors[::2], factors[1::2], strict=True)
        group = group_of(base, *(on_base(base, pair) for pair in pairs))
        with LargestTensor() as largest:
            merge(method, group)
        counts.append(sum(torch.Size(shape).numel() >= size * size for shape in largest.shapes))
    assert counts[0] == counts[1]


def test_deltas_of_adapters_on_the_base_are_factored():
    base, B, A, C, D = random((200, 300), (200, 4), (4, 300), (200, 2), (2, 300))
    group = group_of(base, on_base(base, (B, A)), on_base(base, (C, D)), on_base(base, ()))
    with LargestTensor() as largest:
        deltas = task_deltas(group)
    assert all(isinstance(delta.matrix, FactoredDelta) for delta in deltas)
    assert [delta.is_zero() for delta in deltas] == [False, False, True]
    assert largest.numel <= 300 * 4


def test_update_on_another_base_is_not_rounded():
    """The bases are subtracted before the update is added: in float32, 1 + 1e-8 would be 1."""
    base = torch.ones(4, 4)
    small = torch.full((4, 1), 4e-8), torch.ones(1, 4)
    (delta,) = task_deltas(group_of(base, on(torch.ones(4, 4), small)))
    assert relative_error(delta.matrix.to_dense(), torch.full((4, 4), 1e-8)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_equal_weight_of_another_base_gives_a_zero_delta(dtype: torch.dtype):
    """Both bases are rounded in the same way, so the difference has no rounding noise."""
    (base,) = random((6, 8), dtype=torch.float32)
    (delta,) = task_deltas(group_of(base.to(dtype), on(base, ()).to(dtype)))
    assert delta.is_zero()


@pytest.mark.parametrize("factor", [0, 1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_factor_with_a_value_that_is_not_finite(factor: int, value: float):
    base, B, A = random((4, 5), (4, 2), (2, 5))
    (B, A)[factor][1, 1] = value
    with pytest.raises(MergeError, match=r"Tensor x\.weight of 1 holds a NaN or an infinity"):
        merge("drm", group_of(base, on_base(base, (B, A))))


@defined
def test_threads_get_equal_results(method: str):
    base, *factors = random((32, 48), *[(32, 4), (4, 48)] * 3, dtype=torch.float32)
    pairs = list(zip(factors[::2], factors[1::2], strict=True))

    def run(_: int) -> Tensor:
        return merge(method, group_of(base, *(on_base(base, pair) for pair in pairs)))

    alone = run(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(merged, alone) for merged in pool.map(run, range(16)))


@defined
def test_deltas_of_stacked_experts_are_factored(method: str):
    """Each of the three matrices has its own factors. One input changes none of them."""
    base, B, A, other = random((3, 7, 9), (3, 7, 2), (3, 2, 9), (3, 7, 9))
    factored = on_base(base, (B, A))
    deltas = task_deltas(group_of(base, factored, on_base(base, ())))
    assert all(isinstance(part, FactoredDelta) for delta in deltas for part in delta.matrices())
    torch.testing.assert_close(deltas[0].matrix.to_dense().view(base.shape), SCALE * B @ A)
    assert deltas[1].is_zero()
    merged = merge(method, group_of(base, factored, other, on_base(base, ())))
    wanted = merge(method, group_of(base, base + SCALE * B @ A, other, base))
    torch.testing.assert_close(merged, wanted)
    torch.testing.assert_close(factored.update_added_to(base), base + SCALE * B @ A)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_that_cancel_lose_no_precision(dtype: torch.dtype):
    """A converted PiSSA adapter is the difference of its final and its initial factors."""
    base, B, A, b, a = random((40, 30), (40, 4), (4, 30), (40, 4), (4, 30))
    size = 1e-3 if dtype == torch.float32 else 2**-6
    B, A, b, a = (x.to(dtype) for x in (B, A, b, a))
    pair = torch.cat([B + size * b, -B], 1), torch.cat([A + size * a, A])
    (delta,) = task_deltas(group_of(base.to(dtype), on_base(base.to(dtype), pair)))
    exact = SCALE * pair[0].double() @ pair[1].double()
    assert isinstance(delta.matrix, FactoredDelta)
    assert relative_error(delta.matrix.to_dense(), exact) < 3e-7
    scale = (delta.matrix.B.norm() * delta.matrix.A.norm()) / exact.norm()
    assert scale < 4
