"""Faults of architectures, modules, layers and slices."""

from __future__ import annotations

import pytest
from support.command import try_mergekit_yaml
from support.planted_faults import (
    Fault,
    Workshop,
    assert_found,
    checked,
    in_modules,
    of_another_architecture,
    of_more_layers,
)

FAULTS: dict[str, Fault] = {
    "another architecture": (
        of_another_architecture,
        "error",
        "have different architectures",
        "models[3].model",
    ),
    "more layers": (of_more_layers, "error", "must have the same number of layers", "models"),
    "a module that is not there": (
        lambda w: in_modules(w.recipe(), defualt="models"),
        "error",
        "the models have no module defualt; did you mean default?",
        "modules.defualt",
    ),
    "layers that are not there": (
        lambda w: w.slices([0, 3], [1, 4]),
        "error",
        "layer_range [1, 4] goes beyond the 3 layers",
        "slices[0].sources[1].layer_range",
    ),
    "no layers": (
        lambda w: w.slices([0, 2], [2, 2]),
        "error",
        "layer_range [2, 2] has no layers",
        "slices[0].sources[1].layer_range",
    ),
    "slices of two lengths": (
        lambda w: w.slices([0, 3], [0, 2]),
        "error",
        "the sources of a slice must have the same number of layers",
        "slices[0]",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


def test_layers_that_slices_leave_out_are_no_fault(workshop: Workshop):
    assert checked(workshop.slices([0, 2], [0, 2]), workshop.folder).findings == ()


def test_slices_without_layers_run_as_mergekit_runs_them(workshop: Workshop):
    recipe = workshop.slices([2, 0], [2, 0])
    whole = workshop.slices([0, 3], [0, 3])["slices"]
    recipe["slices"] += whole
    report = checked(recipe, workshop.folder)
    assert [finding.severity for finding in report.findings] == ["warning", "warning"]
    assert "layer_range [2, 0] has no layers" in report.findings[0].message
    result = try_mergekit_yaml(recipe, workshop.folder / "out")
    assert result.exit_code == 0, result.output


def test_a_recipe_of_some_modules(workshop: Workshop):
    report = checked(in_modules(workshop.recipe(), default="models"), workshop.folder)
    assert report.findings == ()
