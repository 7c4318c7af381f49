"""Faults of a recipe's method, base model and dtypes."""

from __future__ import annotations

import pytest
from support.planted_faults import Fault, Workshop, assert_found, without

FAULTS: dict[str, Fault] = {
    "an unknown method": (
        lambda w: w.recipe("knot_ties"),
        "error",
        "no merge method knot_ties; did you mean knots_ties?",
        "merge_method",
    ),
    "no base": (
        lambda w: without(w.recipe(), "base_model"),
        "error",
        "drm needs a base model: set `base_model` to the model that the inputs were fine-tuned",
        "",
    ),
    "no base, of two models": (
        lambda w: without(w.recipe("slerp", t=0.5), "base_model"),
        "error",
        "slerp needs a base model: set `base_model` to one of the two models.",
        "",
    ),
    "a dtype": (
        lambda w: {**w.recipe(), "dtype": "bf16"},
        "error",
        "`dtype` must be float32, bfloat16, float16 or float64, got bf16.",
        "dtype",
    ),
    "a dtype of whole numbers": (
        lambda w: {**w.recipe(), "dtype": "int64"},
        "error",
        "`dtype` must be float32, bfloat16, float16 or float64, got int64.",
        "dtype",
    ),
    "an output of whole numbers": (
        lambda w: {**w.recipe("ties", weight=1), "out_dtype": "torch.int64"},
        "error",
        "`out_dtype` must be float32, bfloat16, float16 or float64, got torch.int64.",
        "out_dtype",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)
