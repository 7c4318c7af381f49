"""Merge deltas with a method given by its name, without models."""

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
    """Return the merged delta, not yet rounded to the inputs' dtype."""
    implementation = get(method)
    assert isinstance(implementation, SpectralMethod)
    settings = settings_of(implementation, len(deltas), **chosen)
    return implementation.merge_matrices(deltas, settings).to_dense()


def settings_of(method: SpectralMethod, inputs: int, **chosen: Any) -> dict[str, Any]:
    """Return a method's default settings, updated by `chosen`, with equal values for all inputs."""
    settings: dict[str, Any] = {}
    for parameter in method.spec.parameters:
        value = chosen.get(parameter.name, parameter.default)
        per_input = parameter in method.spec.input_parameters
        settings[parameter.name] = [value] * inputs if per_input else value
    return settings
