"""Inputs that are the base, or one another."""

from __future__ import annotations

import pytest
from support.planted_faults import Fault, Workshop, assert_found

FAULTS: dict[str, Fault] = {
    "the base as an input": (
        lambda w: w.with_model(w.copied(w.family.base)),
        "warning",
        "seems to have the same weights as the base model",
        "models[3].model",
    ),
    "an input twice": (
        lambda w: w.with_model(w.copied(w.family.tuned[1])),
        "warning",
        "so these count twice",
        "models[3].model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)
