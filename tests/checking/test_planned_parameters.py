"""Faults of parameters that show at the tensors that they apply to."""

from __future__ import annotations

import pytest
from support.planted_faults import Fault, Workshop, assert_found

FAULTS: dict[str, Fault] = {
    "a filter for nothing": (
        lambda w: w.recipe(density=[{"filter": "mlpp", "value": 0.5}, {"value": 1}]),
        "warning",
        "the filter 'mlpp' matches no tensor's name",
        "parameters.density[0]",
    ),
    "della's range": (
        lambda w: w.recipe("della", weight=1, density=0.9, epsilon=0.2),
        "error",
        "density ± epsilon must be between 0 and 1",
        "parameters.density",
    ),
    "weights that cancel": (
        lambda w: w.cancelling("linear"),
        "warning",
        "sum to zero at model.embed_tokens.weight, so there is no mean: linear divides by zero",
        "models[0].parameters.weight",
    ),
    "weights that cancel in star": (
        lambda w: w.cancelling("star"),
        "warning",
        "so there is no mean: they are only added",
        "models[0].parameters.weight",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)
