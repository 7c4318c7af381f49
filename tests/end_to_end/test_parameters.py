"""What a recipe sets arrives where it should: values, gradients, filters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from support import checkpoints
from support.checkpoints import Family
from support.command import mergekit_yaml
from support.expected import assert_merged
from support.recipe_builders import METHODS, per_input, recipe

CASES = {
    "drm density": ("drm", {"density": 0.6}, {"density": 0.6}),
    "drm density 1": ("drm", {"density": 1}, {"density": 1.0}),
    "drm lambda": ("drm", {"lambda": 0.5}, {"lam": 0.5}),
    "drm sums": ("drm", {"normalize": False}, {"normalize": False}),
    "drm tolerance": ("drm", {"rank_tolerance": 0.4}, {"rank_tolerance": 0.4}),
    "drm rank": ("drm", {"rank": 8}, {"rank": 8}),
    "drm share": ("drm", {"rank": 0.25}, {"rank": 0.25}),
    "drm vertical": ("drm", {"direction": "vertical"}, {"direction": "vertical"}),
    "drm auto": ("drm", {"direction": "auto"}, {"direction": "auto"}),
    "drm embeddings": ("drm", {"embeddings": "spectral"}, {"embeddings": "spectral"}),
    "knots density": ("knots_ties", {"density": 0.4}, {"density": 0.4}),
    "knots lambda": ("knots_ties", {"lambda": 0.6}, {"lam": 0.6}),
    "knots tolerance": ("knots_ties", {"rank_tolerance": 0.4}, {"rank_tolerance": 0.4}),
    "knots rank": ("knots_ties", {"rank": 8}, {"rank": 8}),
    "knots vertical": ("knots_ties", {"direction": "vertical"}, {"direction": "vertical"}),
    "knots auto": ("knots_ties", {"direction": "auto"}, {"direction": "auto"}),
    "knots embeddings": ("knots_ties", {"embeddings": "spectral"}, {"embeddings": "spectral"}),
    "star eta": ("star", {"eta": 75}, {"eta": 75.0}),
    "star everything": ("star", {"eta": 100}, {"eta": 100.0}),
    "star lambda": ("star", {"lambda": 1.5}, {"lam": 1.5}),
    "star sums": ("star", {"normalize": False}, {"normalize": False}),
    "actmat tolerance": ("actmat", {"rank_tolerance": 0.4}, {"rank_tolerance": 0.4}),
    "actmat exactly": ("actmat", {"rank_tolerance": 0.001}, {"rank_tolerance": 0.001}),
    "actmat vertical": ("actmat", {"direction": "vertical"}, {"direction": "vertical"}),
    "actmat sums": ("actmat", {"normalize": False}, {"normalize": False}),
    "star embeddings": ("star", {"embeddings": "spectral"}, {"embeddings": "spectral"}),
}


@pytest.mark.parametrize(("method", "written", "meant"), CASES.values(), ids=CASES)
def test_a_parameter_for_all(
    method: str, written: dict[str, Any], meant: dict[str, Any], llama: Family, out: Path
):
    mergekit_yaml(recipe(method, llama, **written), out)
    assert_merged(out, llama, method, meant)


@pytest.mark.parametrize("method", ["drm", "knots_ties"])
def test_weak_directions_are_left_out_by_default(method: str, tmp_path: Path, out: Path):
    base = checkpoints.llama()
    family = Family(tmp_path / "base", (tmp_path / "one", tmp_path / "two"))
    base.save_pretrained(family.base)
    for seed, path in enumerate(family.tuned, start=1):
        checkpoints.fine_tuned(base, seed, decay=0.6).save_pretrained(path)
    mergekit_yaml(recipe(method, family), out)
    assert_merged(out, family, method)


def test_knots_is_knots_ties(llama: Family, out: Path):
    mergekit_yaml(recipe("knots", llama, density=0.4), out)
    assert_merged(out, llama, "knots_ties", {"density": 0.4})


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_for_each_input(method: str, llama: Family, out: Path):
    weights = [1.0, 0.5, 2.0]
    mergekit_yaml(per_input(recipe(method, llama), weight=weights), out)
    assert_merged(out, llama, method, {"weights": weights})


@pytest.mark.parametrize("method", METHODS)
def test_a_negative_weight_pulls_the_other_way(method: str, llama: Family, out: Path):
    weights = [1.0, -0.5, 2.0]
    mergekit_yaml(per_input(recipe(method, llama), weight=weights), out)
    assert_merged(out, llama, method, {"weights": weights})


@pytest.mark.parametrize("method", METHODS)
def test_no_weight_at_all_gives_the_base(method: str, llama: Family, out: Path):
    mergekit_yaml(recipe(method, llama, weight=0.0), out)
    base = checkpoints.tensors(llama.base)
    for name, tensor in checkpoints.tensors(out).items():
        assert torch.equal(tensor, base[name]), name


def test_a_density_for_each_input(llama: Family, out: Path):
    densities = [0.1, 0.5, 1.0]
    mergekit_yaml(per_input(recipe("drm", llama), density=densities), out)
    assert_merged(out, llama, "drm", {"density": densities})


def test_an_eta_for_each_input(llama: Family, out: Path):
    mergekit_yaml(per_input(recipe("star", llama), eta=[20, 40, 90]), out)
    assert_merged(out, llama, "star", {"eta": [20.0, 40.0, 90.0]})


@pytest.mark.parametrize(
    ("method", "parameter"),
    [("drm", "density"), ("knots_ties", "density"), ("star", "eta"), ("drm", "rank")],
)
def test_a_gradient_over_the_layers(method: str, parameter: str, llama: Family, out: Path):
    gradient = [1.0, 0.7, 0.1]
    mergekit_yaml(recipe(method, llama, **{parameter: gradient}), out)
    assert_merged(out, llama, method, lambda name: {parameter: gradient[_layer(name)]})


@pytest.mark.parametrize("method", METHODS)
def test_a_filter_by_name(method: str, llama: Family, out: Path):
    filtered = [{"filter": "mlp", "value": 0.3}, {"value": 0.8}]
    mergekit_yaml(recipe(method, llama, **{"lambda": filtered}), out)
    assert_merged(out, llama, method, lambda name: {"lam": 0.3 if "mlp" in name else 0.8})


def _layer(name: str) -> int:
    """The index of a weight's layer; weights outside of the layers take a gradient's start."""
    match = re.search(r"layers\.(\d+)\.", name)
    return int(match[1]) if match else 0
