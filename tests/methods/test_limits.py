"""Memory of a merge, and what happens when memory is too small or an algorithm fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mergekit.merge_methods import get
from mergekit.merge_methods.base import TensorGroup
from support.largest import LargestTensor
from support.matrices import gaussian
from torch import Tensor

from mergekit_spectral.methods import MergeError
from mergekit_spectral.methods import base as methods_base
from mergekit_spectral.spectral import LinAlgError, deltas, numerics
from mergekit_spectral.spectral.merging import merge_entries
from mergekit_spectral.spectral.svd import joint

OUT, IN, T = 64, 400, 6
METHODS = ["drm", "star", "iso", "tsvm", "actmat", "knots_ties", "knots_task_arithmetic"]


def group(axis: int | None = None) -> TensorGroup:
    base, *deltas = gaussian((OUT, IN), T + 1)
    return TensorGroup.from_tensors(
        [base.bfloat16(), *((base + 0.1 * d).bfloat16() for d in deltas)],
        base_index=0, name="model.layers.3.mlp.up_proj.weight", vocabulary_axis=axis,
    )  # fmt: skip


def merge(method: str, axis: int | None = None, **parameters: Any) -> Tensor:
    (merged,) = get(method)((group(axis),), parameters=parameters)
    return merged


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axis", [None, 0])
def test_no_tensor_has_the_size_of_all_inputs(
    method: str, axis: int | None, monkeypatch: pytest.MonkeyPatch
):
    """With blocks of 1/100 of the inputs, no tensor is larger than two of the six inputs."""
    for module, name in [(deltas, "DELTA_BLOCK"), (merge_entries, "STREAM_BLOCK")]:
        monkeypatch.setattr(module, name, OUT * IN * T // 100)
    density = {"density": 0.4} if method in ("drm", "knots_ties") else {}
    inputs = group(axis)
    with LargestTensor() as largest:
        get(method)((inputs,), parameters=density)
    assert largest.numel <= 2 * OUT * IN


class TooLittleMemory:
    """A device that runs out of memory in the first attempts of each merge.

    Attributes:
        divisors: the divisors of the block size in all attempts.
    """

    def __init__(self, failures: int, monkeypatch: pytest.MonkeyPatch):
        self.divisors: list[int] = []
        smaller_blocks = numerics.smaller_blocks
        merge_exactly = merge_entries._Job.merge_exactly

        def record_divisor(divisor: int) -> Any:
            self.divisors.append(divisor)
            return smaller_blocks(divisor)

        def fails(*args: Any) -> None:
            if len(self.divisors) <= failures:
                raise torch.OutOfMemoryError("CUDA out of memory")
            merge_exactly(*args)

        monkeypatch.setattr(methods_base, "_warned", set())
        monkeypatch.setattr(numerics, "smaller_blocks", record_divisor)
        monkeypatch.setattr(merge_entries._Job, "merge_exactly", fails)


@pytest.mark.parametrize("failures", [1, 2])
def test_merge_is_retried_with_smaller_blocks_and_warns_once(
    failures: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    expected = merge("drm")
    device = TooLittleMemory(failures, monkeypatch)
    assert torch.equal(merge("drm"), expected)
    device.divisors.clear()
    assert torch.equal(merge("drm"), expected)
    assert device.divisors == [1, 8, 64][: failures + 1]
    assert len(caplog.messages) == 1
    assert "model.layers.3.mlp.up_proj.weight" in caplog.text


def test_too_little_memory_for_the_result(monkeypatch: pytest.MonkeyPatch):
    TooLittleMemory(99, monkeypatch)
    with pytest.raises(MergeError, match=r"memory for the merged tensor model\.layers\.3\.mlp"):
        merge("drm")


@pytest.mark.parametrize("method", ["drm", "star", "iso", "tsvm", "actmat", "knots_ties"])
def test_decomposition_that_does_not_converge(method: str, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: Any, **__: Any) -> None:
        raise LinAlgError("stev did not converge")

    monkeypatch.setattr(joint, "leading_eigenvectors", fails)
    with pytest.raises(MergeError, match=r"model\.layers\.3\.mlp\.up_proj\.weight cannot be dec"):
        merge(method)


@pytest.mark.parametrize("scipy_fails", [False, True])
def test_fallback_if_the_svd_of_the_triangle_fails(
    scipy_fails: bool, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: Any, **__: Any) -> None:
        raise LinAlgError("svd did not converge")

    tensors = gaussian((8, 12), 3)
    method = get("drm")
    whole = TensorGroup.from_tensors(tensors, base_index=0, name="weight")
    (expected,) = method((whole,))
    monkeypatch.setattr(torch.linalg, "svd", fails)
    if scipy_fails:
        monkeypatch.setattr(joint.scipy.linalg, "svd", fails)
        with pytest.raises(MergeError, match="tensor weight cannot be decomposed"):
            method((whole,))
    else:
        torch.testing.assert_close(method((whole,))[0], expected)
