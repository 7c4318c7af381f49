"""Faults of lists of models that are merged with one another."""

from __future__ import annotations

import pytest
from support.planted_faults import Fault, Workshop, assert_found, checked

FAULTS: dict[str, Fault] = {
    "a model twice": (
        lambda w: w.with_model(w.family.tuned[0]),
        "error",
        "is listed twice among the models to merge; list it once",
        "models[3].model",
    ),
    "too many models": (
        lambda w: w.recipe("slerp", t=0.5),
        "error",
        "slerp cannot merge 3 models and the base: Merge method requires exactly 2 inputs; got 4.",
        "models",
    ),
    "slices without the base": (
        lambda w: w.slices_without_base(),
        "error",
        "drm cannot merge 1 model: Base input is not present in merge inputs.",
        "slices[0].sources",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


@pytest.mark.parametrize("method", ["passthrough", "drm", "karcher"])
def test_the_base_alone(method: str, workshop: Workshop):
    """As in a model that is grown out of its own layers."""
    recipe = workshop.slices([0, 2], method=method)
    recipe["slices"] *= 2
    report = checked(recipe, workshop.folder)
    assert [f for f in report.findings if f.severity != "note"] == []
    assert report.costs is not None
    assert report.costs.seconds > 0
