"""What methods say about their own costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mergekit.merge_methods import get

from mergekit_spectral.methods.costs import BLOCK_BYTES, TensorInputs, Work
from mergekit_spectral.methods.mergekits_own import costs_of

METHODS = ("drm", "star", "knots_ties", "iso", "tsvm", "actmat")
SETTINGS = {"direction": "auto", "embeddings": "elementwise", "rank_tolerance": 0.1}
DENSE = TensorInputs(torch.Size((64, 256)), (None,) * 3, False, 2, False, SETTINGS)
LORA = replace(DENSE, ranks=(4, 4, 8), in_factors=True)


@pytest.mark.parametrize(
    ("method", "count"),
    [("drm", 1), ("knots_ties", 1), ("star", 3), ("iso", 1), ("tsvm", 3), ("actmat", 1)],
)
@pytest.mark.parametrize("tensor", [DENSE, LORA], ids=["dense", "factors"])
def test_decompositions_of_a_matrix(method: str, count: int, tensor: TensorInputs):
    assert get(method).count_work(tensor).decompositions == count


@pytest.mark.parametrize("method", METHODS)
def test_factors_are_less_work_and_memory(method: str):
    costs = costs_of(get(method))
    dense, lora = costs.count_work(DENSE), costs.count_work(LORA)
    assert lora.products < dense.products
    assert lora.cubes < dense.cubes
    assert costs.peak_memory(LORA) < costs.peak_memory(DENSE)


@pytest.mark.parametrize("method", METHODS)
def test_a_dense_input_among_factors_makes_all_dense(method: str):
    mixed = replace(LORA, ranks=(4, None, 8), in_factors=False)
    assert get(method).count_work(mixed) == get(method).count_work(DENSE)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_that_leaves_a_weight_alone_is_no_dense_input(method: str):
    costs = costs_of(get(method))
    two, three = (costs.count_work(replace(LORA, ranks=ranks)) for ranks in ((4, 8), (4, 0, 8)))
    assert (three.products, three.cubes) == (two.products, two.cubes)
    alone = replace(LORA, ranks=(0, 0, 0))
    assert costs.count_work(alone) == Work()
    assert costs.peak_memory(alone) == 0


@pytest.mark.parametrize("method", METHODS)
def test_experts_are_decomposed_one_by_one(method: str):
    one = get(method).count_work(DENSE)
    experts = get(method).count_work(replace(DENSE, shape=torch.Size((5, 64, 256))))
    assert experts == one.times(5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("shape", "vocabulary"), [((64,), False), ((64, 256), True)])
def test_vectors_and_embeddings_are_passes_over_entries(
    method: str, shape: tuple[int, ...], vocabulary: bool
):
    tensor = replace(DENSE, shape=torch.Size(shape), vocabulary=vocabulary)
    assert get(method).count_work(tensor) == Work(entries=3.0 * torch.Size(shape).numel())
    assert get(method).peak_memory(tensor) == BLOCK_BYTES


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_without_entries_is_no_work(method: str):
    empty = replace(DENSE, shape=torch.Size((0, 256)))
    assert get(method).count_work(empty) == Work()
    assert get(method).peak_memory(empty) >= BLOCK_BYTES


def test_the_shared_side_decides():
    vertical = replace(DENSE, settings={**SETTINGS, "direction": "vertical"})
    assert get("drm").count_work(DENSE).cubes == 64**3
    assert get("drm").count_work(vertical).cubes == 256**3
    assert get("star").count_work(vertical).cubes == 3 * 64**3


@pytest.mark.parametrize("method", ["drm", "knots_ties"])
@pytest.mark.parametrize("tensor", [DENSE, LORA], ids=["dense", "factors"])
def test_fewer_directions_are_less_work_and_memory(method: str, tensor: TensorInputs):
    def limited(rank: float | None) -> TensorInputs:
        return replace(tensor, settings={**SETTINGS, "rank": rank})

    costs = get(method)
    assert costs.count_work(limited(None)) == costs.count_work(tensor)
    assert costs.count_work(limited(1.0)) == costs.count_work(tensor)
    less, more = costs.count_work(limited(4)), costs.count_work(limited(0.25))
    assert less.products < more.products
    assert less.entries < more.entries
    if tensor is DENSE:
        assert more.cubes < costs.count_work(tensor).cubes
        memory = [costs.peak_memory(limited(rank)) for rank in (4, 0.25, None)]
        assert memory == sorted(set(memory))


@pytest.mark.parametrize("tensor", [DENSE, LORA], ids=["dense", "factors"])
def test_actmat_in_float64_takes_more(tensor: TensorInputs):
    exact = replace(tensor, settings={**SETTINGS, "rank_tolerance": 0.001})
    fast, slow = (get("actmat").count_work(each) for each in (tensor, exact))
    assert slow.products == 2 * fast.products
    assert slow.decompositions == fast.decompositions
    more = get("actmat").peak_memory(exact) - get("actmat").peak_memory(tensor)
    assert (more > 0) == (tensor is DENSE)


def test_mergekits_own_methods_are_passes_over_stacked_entries():
    costs = costs_of(get("ties"))
    assert costs.count_work(DENSE) == Work(entries=3.0 * 64 * 256)
    assert costs.peak_memory(DENSE) == (3 * 3 * 2 + 12) * 64 * 256


@pytest.mark.parametrize(
    ("method", "averages"),
    [
        ("drm", False),
        ("star", True),
        ("knots_ties", False),
        ("knots_task_arithmetic", True),
        ("ties", False),
        ("task_arithmetic", True),
        ("linear", True),
        ("slerp", False),
    ],
)
def test_methods_that_divide_by_the_sum_of_all_weights(method: str, averages: bool):
    assert costs_of(get(method)).averages_all == averages


@pytest.mark.parametrize(
    ("method", "square", "wide"),
    [
        ("drm", 0.81, 0.91),
        ("knots_ties", 0.81, 0.88),
        ("star", 0.84, 0.87),
        ("iso", 0.88, 1.04),
        ("actmat", 0.81, 0.81),
    ],
)
def test_memory_on_a_gpu_is_about_what_was_measured(method: str, square: float, wide: float):
    """On an H100, four inputs in bfloat16, besides inputs and result."""
    costs = get(method)
    for columns, measured in ((4096, square), (14336, wide)):
        settings = {each.name: each.default for each in costs.spec.parameters}
        shape = torch.Size((4096, columns))
        tensor = TensorInputs(shape, (None,) * 4, False, 2, False, settings, on_gpu=True)
        assert costs.peak_memory(tensor) == pytest.approx(measured * 1e9, rel=0.15)
