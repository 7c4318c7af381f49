"""Inputs that stay in main memory because the device has too little memory for all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mergekit.merge_methods import get
from mergekit.merge_methods.base import TensorGroup
from support.matrices import gaussian
from support.one_device import OneDevice
from torch import Tensor

from mergekit_spectral.adapters.deferred import HostTensor
from mergekit_spectral.methods import base as methods_base
from mergekit_spectral.methods import task_deltas
from mergekit_spectral.methods.task_deltas import moved_if_small

CPU, META, CUDA = map(torch.device, ("cpu", "meta", "cuda:0"))
GIB = 1 << 30


def group(tensors: list[Tensor], **metadata: Any) -> TensorGroup:
    return TensorGroup.from_tensors(tensors, base_index=0, name="weight", **metadata)


def in_main_memory(tensors: list[Tensor], device: torch.device = CPU) -> list[Tensor]:
    return [HostTensor(tensor, device) for tensor in tensors]


@pytest.fixture(params=[(64, 40), (3, 20, 16), (50,)], ids=str)
def tensors(request: pytest.FixtureRequest) -> list[Tensor]:
    base, *deltas = gaussian(request.param, 4)
    return [base.bfloat16(), *((base + 0.1 * delta).bfloat16() for delta in deltas)]


@pytest.mark.parametrize(
    "method", ["drm", "knots_ties", "knots_dare_ties", "star", "iso", "tsvm", "actmat"]
)
@pytest.mark.parametrize("axis", [None, 0])
def test_result_is_the_same(
    method: str, axis: int | None, tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task_deltas, "moved_if_small", lambda group, device: group)
    results = []
    for inputs in (tensors, in_main_memory(tensors)):
        torch.manual_seed(0)
        results += get(method)((group(inputs, vocabulary_axis=axis),), parameters={})
    assert type(results[1]) is Tensor
    assert torch.equal(*results)


def test_inputs_equal_to_the_base_give_the_base(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(task_deltas, "moved_if_small", lambda group, device: group)
    (base,) = gaussian((4, 5), 1)
    (result,) = get("drm")(
        (group(in_main_memory([base, base.clone(), base.clone()])),), parameters={}
    )
    assert type(result) is Tensor
    assert torch.equal(result, base)


def test_input_on_the_device_with_base_in_main_memory(monkeypatch: pytest.MonkeyPatch):
    # Meta tensors have no values, so they cannot be checked.
    monkeypatch.setattr(task_deltas, "is_finite", lambda tensor: True)
    base, first, second = gaussian((4, 5), 3)
    mixed = group([HostTensor(base, META), first.to(META), HostTensor(second, META)])
    for matrix, stored_on in zip(differences(mixed), ("meta", "cpu"), strict=True):
        assert matrix.device == META
        assert {matrix.tuned.device.type, matrix.base.device.type} == {stored_on}


def test_tensor_that_does_not_fit_on_the_device_is_merged_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    method, tensors = get("drm"), gaussian((4, 5), 3)
    (expected,) = method((group(tensors),))
    given = group(in_main_memory(tensors, META))
    defaults = {each.name: each.default for each in method.spec.parameters}
    per_input = {
        each.name: dict.fromkeys([entry.id for entry in given.non_base], each.default)
        for each in method.spec.input_parameters
    }
    base_and_deltas, results = methods_base.base_and_deltas, []

    def out_of_memory_unless_on_the_cpu(given: TensorGroup) -> Any:
        if given.base is not None and given.base.tensor.device == META:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return base_and_deltas(given)

    def record(tensor: Tensor) -> bool:
        results.append(tensor)
        return True

    monkeypatch.setattr(methods_base, "_warned", set())
    monkeypatch.setattr(methods_base, "base_and_deltas", out_of_memory_unless_on_the_cpu)
    monkeypatch.setattr(methods_base, "is_finite", record)
    for _ in range(2):
        # mergekit's own call asks for autocast, which the meta device does not have.
        merged = method.merge_group(given, **{**defaults, **per_input})
        assert (merged.device, merged.shape) == (META, expected.shape)
        assert torch.equal(results[-1], expected)
    (message,) = caplog.messages
    assert "out of memory at tensor weight; the merge continues on the CPU" in message


def differences(given: TensorGroup) -> list[Any]:
    return [delta.matrix for delta in task_deltas.task_deltas(given)]


def test_elementwise_merge_with_base_in_main_memory():
    """Merged values are on the device, so the base's values are moved there before the sum."""
    base, values = gaussian((4, 5), 2)
    output = methods_base._OntoBase(base, 0.5, torch.empty(4, 5, device=META))
    with OneDevice():
        output.write(slice(0, 10), values[:2].to(META))
    result = base.clone()
    output = methods_base._OntoBase(base, 0.5, result)
    output.write(slice(0, 5), values[0])
    output.write(torch.tensor([6, 8]), values[1, :2])
    expected = base.flatten().clone()
    expected[:5] += 0.5 * values[0]
    expected[[6, 8]] += 0.5 * values[1, :2]
    torch.testing.assert_close(result.flatten(), expected)


def test_small_inputs_are_moved_immediately():
    tensors = gaussian((4, 5), 3)
    moved = moved_if_small(group(in_main_memory(tensors, META)), META)
    assert [type(entry.tensor) for entry in moved.entries] == [Tensor] * 3
    assert {entry.tensor.device for entry in moved.entries} == {META}


@pytest.mark.parametrize(("inputs", "fits"), [(1.9, True), (2.1, False)])
def test_inputs_are_moved_if_they_fit_into_a_quarter_of_the_free_memory(
    inputs: float, fits: bool, monkeypatch: pytest.MonkeyPatch
):
    """7 GiB are free, and PyTorch has reserved 1 GiB that no tensor uses: a quarter is 2 GiB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 * GIB, 8 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * GIB)
    monkeypatch.setattr(HostTensor, "to_dense", lambda self: self.stored)
    each = torch.empty(int(inputs * GIB) // 3, dtype=torch.uint8)
    given = group(in_main_memory([each.to("meta")] * 3, META))
    moved = task_deltas.moved_if_small(given, CUDA)
    assert (moved is not given) == fits
