"""Factored deltas are decomposed, projected and truncated without any tensor of shape [out, in]."""

from __future__ import annotations

import pytest
import torch
from support.largest import LargestTensor

from mergekit_spectral.spectral import (
    FactoredDelta,
    above_tolerance,
    joint_decomposition,
    truncate,
)

OUT, IN = 500, 400


def deltas(dtype: torch.dtype) -> list[FactoredDelta]:
    torch.manual_seed(0)
    ranks = (4, 8, 0, 2)
    return [
        FactoredDelta(torch.randn(OUT, r).to(dtype), torch.randn(r, IN).to(dtype)) for r in ranks
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("tolerance", [0.01, 1e-5, 0.0])
def test_joint_decomposition(dtype: torch.dtype, tolerance: float):
    inputs = deltas(dtype)
    with LargestTensor() as largest:
        joint = joint_decomposition(inputs, above_tolerance(tolerance), resolution=tolerance)
        for delta in inputs:
            joint.coordinates(delta)
    assert joint.basis.shape == (OUT, 14)
    assert largest.numel <= OUT * 14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_truncation(dtype: torch.dtype):
    with LargestTensor() as largest:
        for delta in deltas(dtype):
            truncate(delta, 40)
    assert largest.numel <= OUT * 8
