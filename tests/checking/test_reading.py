"""Faults of a recipe's text and of its keys."""

from __future__ import annotations

import pytest
import yaml
from support.planted_faults import Fault, Workshop, assert_found, checked, without

FAULTS: dict[str, Fault] = {
    "not YAML": (lambda w: "merge_method: [drm\n", "error", "is not YAML: ", ""),
    "a control character": (lambda w: "merge_method: \x07drm\n", "error", "is not YAML: ", ""),
    "no date": (lambda w: "merge_method: 2024-13-45\n", "error", "is not YAML: ", ""),
    "a list in itself": (
        lambda w: "merge_method: drm\nmodels: &a [*a]\n",
        "error",
        "the recipe is nested too deeply, or contains itself.",
        "",
    ),
    "a null": (
        lambda w: w.recipe(density=None),
        "error",
        "`parameters.density`: has a form that mergekit cannot read, got nothing.",
        "parameters.density",
    ),
    "not a mapping": (lambda w: "- drm\n", "error", "is not a mapping", ""),
    "a key twice": (
        lambda w: yaml.safe_dump(w.recipe()) + "merge_method: star\n",
        "warning",
        "`merge_method` is listed more than once",
        "merge_method",
    ),
    "no method": (
        lambda w: without(w.recipe(), "merge_method"),
        "error",
        "`merge_method`: Field required",
        "merge_method",
    ),
    "no models": (
        lambda w: without(w.recipe(), "models"),
        "error",
        "Exactly one of 'models', 'slices', or 'modules' must be present",
        "",
    ),
    "two pluses": (
        lambda w: w.with_model("a+b+c"),
        "error",
        "Can't parse a+b+c",
        "",
    ),
    "a misspelt key": (
        lambda w: {**w.recipe(), "base_modell": "x"},
        "warning",
        "no key `base_modell` and ignores it; did you mean base_model?",
        "base_modell",
    ),
    "an option as a key": (
        lambda w: {**w.recipe(), "random_seed": 0},
        "warning",
        "is not a key of a recipe, and mergekit ignores it; give --random-seed to `mergekit-yaml`.",
        "random_seed",
    ),
    "a name, which is for several recipes": (
        lambda w: {**w.recipe(), "name": "mine"},
        "note",
        "`mergekit-yaml` ignores `name`; `mergekit-multi` uses it.",
        "name",
    ),
    "a misspelt key of a model": (
        lambda w: w.with_model(w.family.base, parameter={"weight": 2}),
        "warning",
        "no key `parameter` in models[3] and ignores it; did you mean parameters?",
        "models[3].parameter",
    ),
    "a misspelt key of a filter": (
        lambda w: w.recipe(density=[{"filtre": "mlp", "value": 0.5}]),
        "warning",
        "no key `filtre` in parameters.density[0] and ignores it; did you mean filter?",
        "parameters.density[0].filtre",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, workshop: Workshop):
    assert_found(FAULTS[fault], workshop)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("mine: &mine [*mine]", True),
        ("models_: [{model: &x {y: *x}}]", True),
        # A billion entries, which nobody looks at.
        ("\n".join([f"a0: &a0 {[0] * 10}", *(
            f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
        )]), True),
    ],
    ids=["a list in itself", "a mapping in itself", "a billion"],
)  # fmt: skip
def test_keys_that_mergekit_ignores_may_hold_anything(text: str, runs: bool, workshop: Workshop):
    report = checked(f"{text}\n{yaml.safe_dump(workshop.recipe())}", workshop.folder)
    assert not report.failed
    assert {finding.severity for finding in report.findings} == {"warning"}


def test_findings_are_in_the_order_of_lines(workshop: Workshop):
    recipe = {**workshop.recipe(densty=0.5), "dtype": "bf16", "base_modell": "x"}
    recipe = {"out_dtype": "bf16", **recipe}
    lines = [finding.line for finding in checked(recipe, workshop.folder).findings]
    assert len(lines) == 4
    assert lines == sorted(lines, key=lambda line: line or 0)
