"""Parameters of the methods: valid values, defaults, and messages about wrong values."""

from __future__ import annotations

from typing import Any

import click
import pytest
import torch
from mergekit.merge_methods import get, merge_tensors, registered_methods
from mergekit.merge_methods.base import ParameterScope

from mergekit_spectral.methods import STAR, KnOTS, MergeError, SpectralMethod
from mergekit_spectral.methods.parameters import LAMBDA, WEIGHT

SPECTRAL = [m for m in registered_methods() if isinstance(m, SpectralMethod)]
OUT_OF_RANGE: list[tuple[str, str, Any]] = [
    *[("drm", "density", value) for value in (0, -0.1, 1.0001, float("nan"), "many", None)],
    *[("drm", "rank_tolerance", value) for value in (-1e-9, 1, float("nan"))],
    *[("knots_ties", "rank_tolerance", value) for value in (-1e-9, 1)],
    *[("drm", "rank", value) for value in (0, -1, 0.0, True, False, "many", float("inf"))],
    *[("knots_ties", "rank", value) for value in (-0.5, float("nan"), [4, 8])],
    *[("drm", "direction", value) for value in ("diagonal", 1, True)],
    *[("knots", "direction", "Vertical")],
    *[("star", "eta", value) for value in (0, 100.5, float("nan"))],
    *[("star", "embeddings", "svd")],
    *[("star", "weight", value) for value in (float("nan"), float("inf"), "heavy")],
    *[("drm", "lambda", value) for value in (float("inf"), 1e39, -1e300, 10**400)],
    *[("knots_ties", "weight", 1e39), ("star", "weight", -1e39)],
    *[("drm", "normalize", "perhaps")],
    *[("knots_dare_ties", "density", "half")],
]


def parameter(method: str, name: str):
    return next(p for p in get(method).spec.parameters if p.name == name)


@pytest.mark.parametrize(("method", "name", "value"), OUT_OF_RANGE)
def test_value_out_of_range_is_refused(method: str, name: str, value: Any):
    with pytest.raises(MergeError) as refused:
        parameter(method, name).validate(value)
    message = str(refused.value)
    assert message.startswith(f"{method}: parameter `{name}` must be ")
    assert message.endswith(f"got {value!r}.")
    assert parameter(method, name).valid in message


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("drm", "density", 1),
        ("drm", "density", "1e-2"),  # YAML reads 1e-2 as a string
        ("drm", "rank_tolerance", 0),
        ("drm", "rank", 1),
        ("drm", "rank", 1e-9),
        ("drm", "rank", 1.0),
        ("drm", "rank", "0.25"),
        ("drm", "rank", 384.5),  # of a gradient from 512 to 256
        ("star", "eta", 100),
        ("star", "weight", -1),
        ("drm", "lambda", 0),
    ],
)
def test_limits_of_the_ranges_are_valid(method: str, name: str, value: Any):
    assert parameter(method, name).validate(value) == float(value)


def test_rank_1_is_one_direction_and_1_0_all_of_them():
    values = [parameter("drm", "rank").validate(value) for value in (1, 1.0)]
    assert list(map(type, values)) == [int, float]


def test_commands_print_an_error_without_a_traceback():
    """click does that for a `ClickException`."""
    assert issubclass(MergeError, click.ClickException)
    assert issubclass(MergeError, ValueError)


def test_defaults():
    def defaults(method: str) -> dict[str, Any]:
        return {p.name: p.default for p in get(method).spec.parameters}

    shared = {"weight": 1.0, "lambda": 1.0, "embeddings": "elementwise"}
    assert defaults("drm") == shared | {
        "density": 0.2,
        "normalize": True,
        "direction": "horizontal",
        "rank_tolerance": 0.01,
        "rank": None,
        "renormalize": True,
    }
    assert defaults("star") == shared | {"eta": 40.0, "normalize": True}
    assert defaults("actmat") == shared | {
        "normalize": True,
        "direction": "auto",
        "rank_tolerance": 0.1,
    }
    assert defaults("knots") == defaults("knots_ties")
    assert defaults("knots_dare_ties") == shared | {
        "direction": "horizontal",
        "rank_tolerance": 1e-5,
        "rank": None,
        "density": 1.0,
        "normalize": False,
        "rescale": True,
        "int8_mask": False,
    }


@pytest.mark.parametrize("method", SPECTRAL, ids=lambda m: m.spec.name)
def test_specs_are_complete(method: SpectralMethod):
    names = {p.name for p in method.spec.parameters}
    assert {"weight", "lambda", "normalize", "embeddings"} <= names
    for p in method.spec.parameters:
        assert p.method == method.spec.name
        assert p.valid
        assert not p.required
        assert p.validate(p.default) == p.default
        per_input = p.name in {"weight", "density", "eta", "share", "gamma", "epsilon"}
        assert p.scope == (ParameterScope.NON_BASE if per_input else ParameterScope.SHARED)
    if isinstance(method, KnOTS):
        assert {p.name for p in method.inner.spec.parameters} <= names


def test_every_method_has_lambda_and_embeddings():
    class Plain(STAR):
        def __init__(self) -> None:
            SpectralMethod.__init__(self, "plain", "Plain", "", "", [LAMBDA, WEIGHT])

    spec = Plain().spec
    assert [p.name for p in spec.parameters] == ["lambda", "weight", "embeddings"]


def test_error_of_an_inner_method_names_the_knots_method():
    with pytest.raises(MergeError, match=r"^knots_della: Epsilon must be chosen such that"):
        merge_tensors(
            [torch.zeros(4, 4), torch.eye(4)],
            "knots_della",
            base_index=0,
            parameters={"density": 0.9, "epsilon": 0.15},
        )


def test_errors_about_the_inputs():
    drm = get("drm")
    with pytest.raises(MergeError, match=r"^drm merges differences .* set `base_model`"):
        drm.validate_inputs(["a", "b"], None)
    with pytest.raises(MergeError, match=r"base model base has no tensor q.weight.* only in a, b"):
        drm.validate_inputs(["a", "b"], "base", group_name="q.weight")
    with pytest.raises(MergeError, match=r"^drm: Duplicate merge inputs for q.weight\.$"):
        drm.validate_inputs(["a", "a", "base"], "base", group_name="q.weight")


@pytest.mark.parametrize(
    ("shape", "direction"), [((8, 1), "horizontal"), ((1, 8), "vertical"), ((), "horizontal")]
)
def test_rows_with_one_entry_in_della(shape: tuple[int, ...], direction: str):
    """In a row with one entry there are no ranks. The entry is kept unscaled, or dropped."""
    tensors = [torch.zeros(shape), torch.ones(shape)]
    parameters = {"density": 0.5, "direction": direction, "rescale": False}
    kept = []
    for seed in range(20):
        torch.manual_seed(seed)
        merged = merge_tensors(tensors, "knots_della", base_index=0, parameters=parameters)
        kept.append(float(merged.sum() / tensors[1].sum()))
    assert set(map(round, kept)) == {0, 1}
    whole = merge_tensors(tensors, "knots_della", base_index=0, parameters={"density": 1})
    torch.testing.assert_close(whole, tensors[1])
