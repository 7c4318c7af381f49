"""Merge groups of tensors: shapes, dtypes, zero deltas, invalid values."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from mergekit.merge_methods import get, merge_state_dicts, merge_tensors
from mergekit.merge_methods.base import TensorGroup
from reference import DEFINITIONS, relative_error
from support.matrices import gaussian
from torch import Tensor

from mergekit_spectral.methods import MergeError

METHODS = [*DEFINITIONS, "knots_dare_ties", "knots_della", "knots_breadcrumbs_ties"]

methods = pytest.mark.parametrize("method", METHODS)
defined = pytest.mark.parametrize("method", DEFINITIONS)


def merge(tensors: list[Tensor], method: str, axis: int | None = None, **parameters: Any) -> Tensor:
    """Merge tensors; the first is the base."""
    group = TensorGroup.from_tensors(
        tensors, ids=["base", "a", "b", "c"][: len(tensors)], base_index=0, name="x.weight",
        vocabulary_axis=axis,
    )  # fmt: skip
    return get(method)((group,), parameters=parameters)[0]


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [tensor.to(dtype) for tensor in gaussian(shape, 4)]


def deltas(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.double() - tensors[0].double() for tensor in tensors[1:]]


@defined
def test_result_is_base_plus_scaled_merged_delta(method: str):
    tensors = inputs((6, 8))
    expected = tensors[0] + DEFINITIONS[method](deltas(tensors), lam=0.3)
    assert relative_error(merge(tensors, method, **{"lambda": 0.3}), expected) < 1e-9


@defined
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_result_is_rounded_once(method: str, dtype: torch.dtype):
    tensors = inputs((24, 32), dtype)
    merged = merge(tensors, method)
    expected = tensors[0].double() + DEFINITIONS[method](deltas(tensors))
    assert merged.dtype == dtype
    # Half a unit in the last place, and the error of the computation in float32.
    half_ulp = torch.finfo(dtype).eps / 2 * expected.abs()
    assert ((merged.double() - expected).abs() <= 1.01 * half_ulp + 1e-4).all()


@methods
def test_inputs_are_not_changed(method: str):
    tensors = inputs((6, 8), torch.float32)
    copies = [tensor.clone() for tensor in tensors]
    merge(tensors, method)
    assert all(torch.equal(t, c) for t, c in zip(tensors, copies, strict=True))


@methods
@pytest.mark.parametrize("shape", [(6, 8), (5,), (), (2, 3, 4), (4, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_equal_to_the_base_give_the_base(
    method: str, shape: tuple[int, ...], dtype: torch.dtype
):
    base = inputs(shape, dtype)[0]
    base.view(-1)[0] = -0.0
    merged = merge([base, base.clone(), base.clone()], method)
    assert torch.equal(merged.view(-1).signbit(), base.view(-1).signbit())
    assert torch.equal(merged, base)


@defined
def test_one_input_equal_to_the_base(method: str):
    tensors = inputs((6, 8))
    tensors[2] = tensors[0].clone()
    expected = tensors[0] + DEFINITIONS[method](deltas(tensors))
    assert relative_error(merge(tensors, method), expected) < 1e-9


@methods
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
def test_tensors_without_entries(method: str, shape: tuple[int, ...]):
    empty = torch.zeros(shape)
    assert merge([empty, empty.clone()], method).shape == shape


@methods
def test_group_with_only_the_base(method: str):
    base = inputs((3, 4))[0]
    assert torch.equal(merge([base], method), base)


@pytest.mark.parametrize("shape", [(7,), ()])
def test_vectors_are_merged_elementwise(shape: tuple[int, ...]):
    tensors = inputs(shape)
    D = deltas(tensors)
    weights = [1.0, 2.0, 0.5]
    drm = tensors[0] + reference.elect_and_average(D, weights)
    star = tensors[0] + sum(w * d for w, d in zip(weights, D, strict=True)) / sum(weights)
    ties = merge(tensors, "ties", weight=weights, density=0.5)
    torch.testing.assert_close(merge(tensors, "drm", weight=weights, density=0.1), drm)
    for method in ("star", "iso", "tsvm", "actmat"):
        torch.testing.assert_close(merge(tensors, method, weight=weights), star)
    torch.testing.assert_close(merge(tensors, "knots", weight=weights, density=0.5), ties)
    dense_ties = merge(tensors, "ties", weight=weights)
    torch.testing.assert_close(merge(tensors, "drm", weight=weights), dense_ties)


@defined
def test_vocabulary_is_merged_elementwise_by_default(method: str):
    tensors = inputs((6, 8))
    spectral = merge(tensors, method)
    vectors = merge([tensor.flatten() for tensor in tensors], method).view(6, 8)
    assert torch.equal(merge(tensors, method, axis=0), vectors)
    assert torch.equal(merge(tensors, method, axis=0, embeddings="spectral"), spectral)
    assert not torch.equal(vectors, spectral)


@defined
def test_each_expert_is_merged_as_one_matrix(method: str):
    tensors = inputs((3, 6, 8))
    slices = [merge([t[i] for t in tensors], method) for i in range(3)]
    assert torch.equal(merge(tensors, method), torch.stack(slices))


@methods
def test_experts_that_do_not_differ_from_the_base_stay(method: str):
    tensors = inputs((3, 6, 8), torch.float32)
    for tensor in tensors[1:]:
        tensor[1] = tensors[0][1]
    merged = merge(tensors, method)
    assert torch.equal(merged[1], tensors[0][1])
    assert merged.isfinite().all()


@defined
def test_convolutions_are_flattened_to_out_by_rest(method: str):
    tensors = inputs((6, 2, 2, 2))
    flat = merge([tensor.view(6, 8) for tensor in tensors], method)
    assert torch.equal(merge(tensors, method), flat.view(6, 2, 2, 2))


@defined
@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 1)])
def test_single_row_or_column(method: str, shape: tuple[int, int]):
    tensors = inputs(shape)
    merged = merge(tensors, method)
    assert merged.shape == shape
    assert merged.isfinite().all()


@defined
def test_strides_have_no_effect(method: str):
    tensors = inputs((6, 8))
    strided = [tensor.T.contiguous().T for tensor in tensors]
    torch.testing.assert_close(merge(strided, method), merge(tensors, method))
    images = inputs((2, 3, 4, 5))
    strided = [tensor.contiguous(memory_format=torch.channels_last) for tensor in images]
    torch.testing.assert_close(merge(strided, method), merge(images, method))


@methods
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, 2])
def test_error_about_invalid_values_names_the_input_and_the_tensor(
    method: str, bad: float, where: int
):
    tensors = inputs((6, 8), torch.bfloat16)
    tensors[where][1, 1] = bad
    name = ["base", "a", "b", "c"][where]
    message = rf"^Tensor x\.weight of {name} holds a NaN or an infinity in bfloat16;"
    with pytest.raises(MergeError, match=message):
        merge(tensors, method)


def test_seed_decides_random_inner_methods():
    tensors = inputs((6, 8))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(merge(tensors, "knots_dare_ties", density=0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_int8_mask_changes_nothing():
    tensors = inputs((6, 8))
    plain = merge(tensors, "knots_ties", density=0.5)
    masked = merge(tensors, "knots_ties", density=0.5, int8_mask=True)
    assert torch.equal(plain, masked)


@pytest.mark.parametrize("method", ["drm", "knots_ties", "actmat"])
def test_coordinates_out_of_range_are_an_error(method: str):
    """The deltas are finite, but their products with singular vectors are not."""
    D = 4e34 * gaussian((48, 30), 1)[0].float()
    D[:, 4] = 1e38
    with pytest.raises(MergeError, match=r"weight cannot be decomposed: .* out of"):
        merge([torch.zeros(48, 30), D], method)


@pytest.mark.parametrize("method", METHODS)
def test_result_out_of_range_is_an_error(method: str):
    base = gaussian((6, 5), 1)[0].half()
    tuned = base + gaussian((6, 5), 1, seed=1)[0].half()
    with pytest.raises(
        MergeError, match="out of the range of float16; set `dtype: bfloat16`, or lower"
    ):
        merge([base, tuned], method, **{"lambda": 1e6})


@pytest.mark.parametrize("method", METHODS)
def test_result_out_of_the_range_of_out_dtype_is_an_error(method: str):
    base, tuned = gaussian((6, 5), 2)
    base[0, 0] = tuned[0, 0] = 1e6
    with pytest.raises(MergeError, match=f"^{method}: merged tensor weight has .* of float16,"):
        merge_tensors([base, tuned], method, base_index=0, name="weight", out_dtype=torch.float16)
    merged = merge_tensors([base, tuned], method, base_index=0, out_dtype=torch.bfloat16)
    assert merged.dtype == torch.bfloat16


@methods
def test_weights_that_require_gradients_are_refused(method: str):
    models = [torch.nn.Linear(6, 5) for _ in range(2)]
    with pytest.raises(
        MergeError, match=rf"^{method} does not compute .* weight of input 0 .* `tor"
    ):
        merge_state_dicts(models, method, base=0)
    with torch.no_grad():
        merged = merge_state_dicts(models, method, base=0)
    frozen = [{name: t.detach() for name, t in model.state_dict().items()} for model in models]
    for name, tensor in merge_state_dicts(frozen, method, base=0).items():
        assert not merged[name].requires_grad
        assert torch.equal(merged[name], tensor)


@methods
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_dtypes_that_cannot_be_merged(method: str, dtype: torch.dtype):
    tensors = [tensor.to(dtype) for tensor in gaussian((6, 5), 2)]
    with pytest.raises(MergeError, match=rf"^{method}: tensor weight is of {str(dtype)[6:]}; set"):
        merge_tensors(tensors, method, base_index=0, name="weight")


@methods
@pytest.mark.parametrize("size", [1e-45, 1e-42, 1e-38])
def test_updates_below_float32s_normal_range(method: str, size: float):
    tensors = [torch.zeros(6, 8), *(size * d.float() for d in gaussian((6, 8), 2))]
    try:
        merged = merge(tensors, method)
    except MergeError as error:
        assert "and for values below 1e-38" in error.message  # noqa: PT017, it need not be refused
    else:
        assert merged.isfinite().all()
        assert merged.norm() < 100 * size


@pytest.mark.parametrize("method", ["star", "iso", "tsvm", "actmat"])
@pytest.mark.parametrize("axis", [None, 0])
def test_magnitude_of_weights_has_no_effect(method: str, axis: int | None):
    tensors = inputs((6, 8))
    small, usual = (
        merge(tensors, method, axis, weight=[size, 2 * size, size]) for size in (1e-9, 1.0)
    )
    torch.testing.assert_close(small, usual)
