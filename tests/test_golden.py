"""Compare with outputs of the papers' published code, in float64 (see golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mergekit.merge_methods import merge_tensors
from reference import DEFINITIONS, relative_error
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "index.json").read_text())

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"].split(".")[0])


def load(case: dict[str, Any]) -> tuple[list[torch.Tensor], torch.Tensor]:
    tensors = load_file(GOLDEN / case["file"])
    return [tensors[f"delta.{t}"] for t in range(case["tasks"])], tensors["merged"]


def test_every_method_has_cases_and_every_file_is_used():
    without = {"actmat"}  # no published code of it was run
    assert {case["method"] for case in CASES} == set(DEFINITIONS) - without
    assert len(CASES) == len(list(GOLDEN.glob("*.safetensors")))


@cases
def test_definition_agrees_with_published_code(case: dict[str, Any]):
    deltas, merged = load(case)
    parameters = {name: value for name, value in case["parameters"].items() if name != "lambda"}
    lam = case["parameters"].get("lambda", 1.0)
    actual = DEFINITIONS[case["method"]](deltas, lam=lam, **parameters)
    assert relative_error(actual, merged) < 1e-6


@cases
def test_method_agrees_with_published_code(case: dict[str, Any]):
    deltas, merged = load(case)
    base = torch.zeros_like(merged)
    actual = merge_tensors(
        [base, *deltas], case["method"], base_index=0, parameters=case["parameters"]
    )
    assert actual.dtype == torch.float64
    assert relative_error(actual, merged) < 1e-6
