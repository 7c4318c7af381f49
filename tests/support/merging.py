"""Merges of deltas by name, without models."""

from __future__ import annotations

from typing import Any

import torch
from mergekit.merge_methods import get, merge_tensors
from torch import Tensor

from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.spectral import Delta


def merge(deltas: list[Tensor], method: str, **values: Any) -> Tensor:
    base = torch.zeros_like(deltas[0])
    return merge_tensors([base, *deltas], method, base_index=0, parameters=values)


def merge_matrices(deltas: list[Delta], method: str, **chosen: Any) -> Tensor:
    """The merged delta before it is rounded to the inputs' dtype."""
    implementation = get(method)
    assert isinstance(implementation, SpectralMethod)
    values: dict[str, Any] = {}
    for parameter in implementation.spec.parameters:
        value = chosen.get(parameter.name, parameter.default)
        per_input = parameter in implementation.spec.input_parameters
        values[parameter.name] = [value] * len(deltas) if per_input else value
    return implementation.merge_matrices(deltas, values).to_dense()
