"""Tensors that stay in main memory while they report another device."""

from __future__ import annotations

import pytest
import torch
from support.matrices import gaussian
from support.one_device import OneDevice

from mergekit_spectral.adapters.deferred import HostTensor, add_device_index
from mergekit_spectral.spectral import DenseDelta, FactoredDelta

CPU, META = torch.device("cpu"), torch.device("meta")


def host_tensor() -> HostTensor:
    return HostTensor(gaussian((4, 5), 1)[0].float(), CPU)


def test_moving_keeps_entries_in_main_memory():
    tensor = host_tensor()
    moved = tensor.to(device=META, non_blocking=True)
    assert type(moved) is HostTensor
    assert moved.device == META
    assert moved.stored is tensor.stored
    assert moved.to_dense().device == META


def test_converting_the_dtype_rounds_immediately():
    moved = host_tensor().to(META).to(torch.bfloat16)
    assert (moved.dtype, moved.device) == (torch.bfloat16, META)
    assert torch.equal(moved.stored, host_tensor().stored.bfloat16())


def test_operators_give_ordinary_tensors_on_the_device():
    tensor = host_tensor()
    assert torch.equal(tensor + tensor.stored, 2 * tensor.stored)
    assert type(tensor.to(META).flatten()) is torch.Tensor
    assert tensor.to(META).flatten().device == META


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("with_base", [True, False])
def test_delta_is_computed_on_its_device(dtype: torch.dtype, with_base: bool):
    tuned, base = (tensor.to(dtype) for tensor in gaussian((6, 5), 2))
    delta = DenseDelta(tuned, base if with_base else None, META)
    basis, out = torch.empty(6, 2, device=META), torch.empty(6, 5, device=META)
    with OneDevice():
        delta.add_to(base, 0.5, out)
        on_device = [
            *(block for _, block in delta.dense_columns()),
            *(block for _, block in delta.scaled(0.5).dense_columns()),
            *(part.to_dense() for part in delta.matrices((2, 3, 5))),
            delta.T.to_dense(),
            delta.rows(slice(1, 3)).to_dense(),
            delta.columns(slice(1, 3)).to_dense(),
            delta.project(basis),
            delta.added_to(base, 0.5),
            delta.scaled(0.5).to_dense(),
            delta.scaled(0.5).T.project(basis[:5]),
            FactoredDelta(basis, basis[:5].T).added_to(base, 0.5),
        ]
    assert {tensor.device for tensor in on_device} == {META}


def test_a_device_without_float64_leaves_it_to_the_cpu():
    tuned, base = gaussian((6, 5), 2)
    delta = DenseDelta(tuned.bfloat16(), base.bfloat16(), META).scaled(0.5)
    exact = delta.in_float64()
    assert (delta.device, delta.dtype) == (META, torch.float32)
    assert (exact.device, exact.dtype) == (CPU, torch.float64)
    expected = 0.5 * (tuned.bfloat16().double() - base.bfloat16().double())
    assert torch.equal(exact.to_dense(), expected)
    factors = FactoredDelta(torch.empty(6, 2, device=META), torch.empty(2, 5, device=META))
    assert factors.scaled(0.5).device == META


def test_single_entries_are_computed_on_their_device():
    tuned, base = gaussian((6, 5), 2)
    basis, places = torch.empty(6, 2, device=META), torch.tensor([0, 1, 1])
    values = DenseDelta(tuned, base, META).projected_at(basis, places, places)
    assert (values.device, values.dtype) == (META, torch.float64)


def test_cuda_without_an_index_is_the_current_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert add_device_index(torch.device("cuda")) == torch.device("cuda:3")
    assert add_device_index(torch.device("cuda:1")) == torch.device("cuda:1")
    assert add_device_index(CPU) == CPU
