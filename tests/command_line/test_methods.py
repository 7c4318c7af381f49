from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from mergekit.merge_methods import get, registered_methods

from mergekit_spectral.command_line.main import main
from mergekit_spectral.methods import SpectralMethod


def methods(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["methods", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_method_is_told_once():
    lines = [line.split("|") for line in methods().splitlines() if line.startswith("| `")]
    named = [line[1].strip().strip("`") for line in lines]
    for method in registered_methods():
        assert named.count(method.spec.name) == 1
    titles = {line[1].strip().strip("`"): line[2].strip() for line in lines}
    assert titles["drm"] == "DRM"
    assert titles["della"] == "DELLA"


def test_json_has_what_the_specs_say():
    told = {method["name"]: method for method in json.loads(methods("--json"))}
    assert told.keys() == {method.spec.name for method in registered_methods()}
    for name, method in told.items():
        for parameter, spec in zip(method["parameters"], get(name).spec.parameters, strict=True):
            assert parameter["name"] == spec.name
            assert parameter["required"] == spec.required
            assert parameter["default"] == (None if spec.required else spec.default)
            assert (parameter["scope"] == "shared") == (spec.scope.value == "shared")
        ours = isinstance(get(name), SpectralMethod)
        assert bool(method["summary"]) == ours
        assert not ours or all(p["valid"] and p["description"] for p in method["parameters"])


def test_one_method():
    (told,) = [json.loads(methods("knots_della", "--json"))]
    assert told["base_model"] == "required"
    rows = [" ".join(line.split()) for line in methods("knots_della").splitlines()]
    (epsilon,) = [row for row in rows if row.startswith("| `epsilon` |")]
    assert epsilon.startswith(
        "| `epsilon` | per input | a number | 0.15 | The chance that an entry is"
    )
    assert "Joint SVD, then mergekit's own `della` on the aligned coordinates." in rows
    assert "Published in https://arxiv.org/abs/2410.19735." in rows


def test_a_parameter_that_must_be_given():
    (weight,) = [line for line in methods("linear").splitlines() if "`weight`" in line]
    assert "per input and base" in weight
    assert "must be given" in weight


@pytest.mark.parametrize(
    ("name", "told"),
    [("knotties", "did you mean knots_ties?"), ("xyzzy", "there are actmat, ")],
)
def test_no_such_method(name: str, told: str):
    result = CliRunner().invoke(main, ["methods", name])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: there is no merge method {name}; {told}")
