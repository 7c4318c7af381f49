"""Faults of parameters that the recipe alone shows."""

from __future__ import annotations

import pytest
from support.planted_faults import Fault, Workshop, assert_found, first_input, slerp, without

FAULTS: dict[str, Fault] = {
    "a misspelt parameter": (
        lambda w: w.recipe(densty=0.5),
        "warning",
        "drm has no parameter `densty`, and mergekit ignores it; did you mean density?",
        "parameters.densty",
    ),
    "a misspelt parameter of a model": (
        lambda w: first_input(w.recipe("ties", weight=1), wieght=0.5),
        "warning",
        "ties has no parameter `wieght`, and mergekit ignores it; did you mean weight?",
        "models[0].parameters.wieght",
    ),
    "another method's parameter": (
        lambda w: w.recipe("star", density=0.5),
        "note",
        "star has no parameter `density` and ignores it; ",
        "parameters.density",
    ),
    "a shared parameter of a model": (
        lambda w: first_input(w.recipe(), **{"lambda": 0.5}),
        "warning",
        "`lambda` has no effect here: it holds for all inputs together",
        "models[0].parameters.lambda",
    ),
    "a parameter of the base": (
        lambda w: w.with_model(w.family.base, parameters={"weight": 2}),
        "warning",
        "`weight` has no effect here: ",
        "models[3].parameters.weight",
    ),
    "a value out of range": (
        lambda w: w.recipe(density=1.5),
        "error",
        "drm: parameter `density` must be above 0 and at most 1, got 1.5.",
        "parameters.density",
    ),
    "a value of another type, mergekit's own method": (
        lambda w: w.recipe("ties", weight="heavy"),
        "error",
        "ties: parameter `weight` must be a number, got 'heavy'.",
        "parameters.weight",
    ),
    "a value without sense": (
        lambda w: w.recipe("knots_ties", density=0),
        "warning",
        "at 0 or below, nothing of the input is kept",
        "parameters.density",
    ),
    "an empty gradient": (
        lambda w: w.recipe(density=[]),
        "warning",
        "is an empty list",
        "parameters.density",
    ),
    "a number beyond a share": (
        lambda w: slerp(w, t=1.5),
        "warning",
        "0 is the base model and 1 is the other model; give a number between them",
        "parameters.t",
    ),
    "a parameter that must be given": (
        lambda w: w.recipe("ties"),
        "error",
        "ties needs a value of `weight`; set it under `parameters` of the whole recipe, or of each "
        "model.",
        "",
    ),
    "a parameter that must be given, of the whole recipe": (
        lambda w: without(slerp(w), "parameters"),
        "error",
        "slerp needs a value of `t`; set it under `parameters` of the whole recipe.",
        "",
    ),
    "a parameter that one model lacks": (
        lambda w: w.weighted(1.0, None, 1.0),
        "error",
        "ties needs a value of `weight`, also for ",
        "models[1]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)
