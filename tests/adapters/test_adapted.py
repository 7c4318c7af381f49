"""Tensors that hold a weight and its update, and add them when an operator needs the sum."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mergekit.merge_methods import get
from mergekit.merge_methods.base import TensorGroup
from torch import Tensor

from mergekit_spectral.adapters.adapted import AdaptedTensor, Update

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CPU = torch.device("cpu")


def adapted(
    base: Tensor, update: Update, scale: float = 1.0, reads: list[int] | None = None
) -> AdaptedTensor:
    """Return an `AdaptedTensor` on `base`; every read of `base` appends an item to `reads`."""

    def read() -> Tensor:
        if reads is not None:
            reads.append(1)
        return base

    return AdaptedTensor(read, "base", update, scale, base.shape, base.dtype, CPU)


def example(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[AdaptedTensor, Tensor]:
    """Return an `AdaptedTensor` with factors of rank 2, and the exact sum in float64."""
    generator = torch.Generator().manual_seed(0)
    base, B, A = (torch.randn(s, generator=generator) for s in [(6, 8), (6, 2), (2, 8)])
    base = base.to(dtype)
    return adapted(base, (B, A), 0.5, **options), base.double() + 0.5 * B.double() @ A.double()


@pytest.mark.parametrize("dtype", FLOATS)
def test_shape_dtype_and_device_are_the_weights(dtype: torch.dtype):
    tensor, total = example(dtype)
    assert isinstance(tensor, torch.Tensor)
    assert (tensor.shape, tensor.dtype, tensor.device) == (total.shape, dtype, CPU)
    assert (tensor.ndim, tensor.numel(), tensor.is_floating_point()) == (2, 48, True)
    assert "AdaptedTensor" in repr(tensor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_operators_get_the_sum_rounded_once(dtype: torch.dtype):
    tensor, total = example(dtype)
    error = (tensor * 1 - total).abs()
    assert (tensor * 1).dtype == dtype
    assert (error <= 0.51 * torch.finfo(dtype).eps * total.abs() + 1e-6).all()


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + x,
        lambda x: x @ x.T,
        lambda x: x[2:4],
        lambda x: x.view(-1),
        lambda x: x.clone(),
        lambda x: torch.stack([x, x]),
        lambda x: torch.where(x > 0, x, 0),
        lambda x: x.to(torch.float16, memory_format=torch.contiguous_format),
        lambda x: torch.nn.functional.linear(x, x),
        lambda x: x.expand(2, 6, 8).sum((0, 1)),
        lambda x: torch.empty_like(x).copy_(x),
    ],
)
def test_operators_return_ordinary_tensors(operation: Any):
    tensor, _ = example()
    result = operation(tensor)
    assert type(result) is Tensor
    torch.testing.assert_close(result, operation(tensor.to_dense()))


@pytest.mark.parametrize("dtype", FLOATS)
def test_moving_does_not_read_the_base(dtype: torch.dtype):
    reads: list[int] = []
    tensor, total = example(reads=reads)
    for moved in (tensor.to(dtype), tensor.to("cpu", dtype, non_blocking=True), tensor.type(dtype)):
        assert isinstance(moved, AdaptedTensor)
        assert moved.dtype == dtype
        assert moved.update[0].dtype == torch.float32
    assert isinstance(tensor.detach(), AdaptedTensor)
    assert not reads
    error = (tensor.to(dtype).to_dense().double() - total).abs()
    assert (error <= 1.01 * torch.finfo(dtype).eps * total.abs().max() + 1e-6).all()


def test_moving_to_a_device_moves_only_the_update():
    reads: list[int] = []
    tensor, _ = example(reads=reads)
    moved = tensor.to(device=torch.device("meta"), non_blocking=True)
    assert isinstance(moved, AdaptedTensor)
    assert [part.device.type for part in (moved, *moved.update)] == ["meta"] * 3
    assert not reads


def test_sum_is_cached():
    reads: list[int] = []
    tensor, _ = example(reads=reads)
    assert tensor.to_dense() is tensor.to_dense()
    torch.add(tensor, tensor)
    torch.add(tensor.detach(), tensor.to(torch.float32))
    assert len(reads) == 1


def test_threads_can_share_a_tensor():
    tensor, total = example(torch.float64)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: tensor.detach() + tensor, range(64)):
            torch.testing.assert_close(result, 2 * total)


def test_conversions_round_the_base_but_not_the_update():
    """An input without an update must stay equal to a base with the same conversions."""
    base = torch.randn(6, 8)
    alone = adapted(base, ()).to(torch.bfloat16).to(torch.float32)
    assert torch.equal(alone.to_dense(), base.bfloat16().float())
    small = torch.full((6, 1), 1e-6), torch.ones(1, 8)
    moved = adapted(torch.ones(6, 8), small).to(torch.bfloat16).to(torch.float32)
    assert (moved.to_dense() == 1 + 1e-6).all()


def test_update_of_a_vector_and_empty_update():
    vector = torch.randn(5)
    assert torch.equal(adapted(vector, (torch.ones(5),), 2.0) + 0, vector + 2)
    assert torch.equal(adapted(vector, ()) + 0, vector)


def test_convolution():
    """The factors of a convolution are those of its view as [out, rest]."""
    base, B, A = torch.randn(4, 3, 2, 2), torch.randn(4, 2), torch.randn(2, 12)
    torch.testing.assert_close(adapted(base, (B, A)) + 0, base + (B @ A).view(4, 3, 2, 2))


@given(
    out=st.integers(1, 9),
    rest=st.integers(1, 9),
    rank=st.integers(0, 5),
    scale=st.floats(-4, 4),
    seed=st.integers(0, 999),
)
def test_sum_of_base_and_update(out: int, rest: int, rank: int, scale: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(out, rest), (out, rank), (rank, rest)]
    base, B, A = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    torch.testing.assert_close(adapted(base, (B, A), scale) + 0, base + scale * B @ A)


@pytest.mark.parametrize(
    "method", ["ties", "dare_ties", "task_arithmetic", "linear", "model_stock"]
)
def test_mergekits_methods_get_the_sum(method: str):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    tensors = [
        adapted(base, (torch.randn(6, 2, generator=generator), torch.randn(2, 8))) for _ in range(2)
    ]
    merge = get(method)
    settings: dict[str, Any] = {"density": 0.5} if "ties" in method else {}
    settings |= {"weight": 1.0} if method != "model_stock" else {}

    def merged(inputs: list[Tensor]) -> Tensor:
        torch.manual_seed(0)
        index = None if method == "linear" else 0
        group = TensorGroup.from_tensors([base, *inputs], base_index=index)
        return merge((group,), parameters=settings)[0]

    dense = merged([tensor.to_dense() for tensor in tensors])
    lazy = merged(tensors)
    assert type(lazy) is Tensor
    assert torch.equal(lazy, dense)
