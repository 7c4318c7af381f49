"""Merged LoRA adapters are recognized in rounded checkpoints, and full fine-tunes are not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.inspections import inspection
from support.matrices import gaussian
from torch import Tensor

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.rounding import rounding_norm
from mergekit_spectral.inspecting.summary import adapter_ranks, full_fine_tunes
from mergekit_spectral.inspecting.verdict import decide
from mergekit_spectral.spectral import Delta, DenseDelta, FactoredDelta

SHAPE = (96, 160)
RANK = 4
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def adapter_update(seed: int, size: float) -> Tensor:
    """Return B·A with values that decrease, of a norm relative to that of a Gaussian matrix."""
    B, A = gaussian((SHAPE[0], RANK), 1, seed)[0], gaussian((RANK, SHAPE[1]), 1, seed + 1)[0]
    update = (B * torch.tensor([1.0, 0.6, 0.4, 0.25], dtype=B.dtype)) @ A
    return size * (SHAPE[0] * SHAPE[1]) ** 0.5 * update / update.norm()


def full_update(seed: int, size: float, decay: float) -> Tensor:
    """Return an update of all directions, whose singular values decrease as i^-decay."""
    (update,) = gaussian(SHAPE, 1, seed)
    U, S, V = torch.linalg.svd(update, full_matrices=False)
    values = torch.arange(1, len(S) + 1, dtype=S.dtype) ** -decay
    return size * (SHAPE[0] * SHAPE[1]) ** 0.5 * (U * (values / values.norm())) @ V


def checkpoints(
    base: Tensor, updates: list[Tensor], dtype: torch.dtype, read_as: torch.dtype | None = None
) -> list[Delta]:
    """Return the updates as they are after base and sums were saved in a dtype."""
    saved = base.to(dtype)
    sums = [(saved.double() + update).to(dtype) for update in updates]
    return [DenseDelta(each.to(read_as or dtype), saved.to(read_as or dtype)) for each in sums]


def inspected(updates: list[Tensor], dtype: torch.dtype, **read: torch.dtype) -> Inspection:
    (base,) = gaussian(SHAPE, 1, 99)
    return inspection(checkpoints(base, updates, dtype, **read), base_norm=float(base.norm()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.01, 0.05])
def test_merged_adapters_are_recognized(dtype: torch.dtype, size: float):
    found = inspected([adapter_update(seed, size) for seed in (1, 3)], dtype)
    assert full_fine_tunes(found) == [False, False]
    for rank in adapter_ranks(found):
        assert rank is not None
        assert 2 <= rank <= RANK
    verdict = decide(found)
    assert verdict.headline == "Merge these 2 merged LoRA adapters with `iso` at λ = 1."
    assert "mergekit-extract-lora" in verdict.answers[3].reason


def test_checkpoints_may_be_read_in_another_dtype():
    updates = [adapter_update(seed, 0.02) for seed in (1, 3)]
    found = inspected(updates, torch.bfloat16, read_as=torch.float32)
    assert None not in adapter_ranks(found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("size", [0.001, 0.01, 0.05])
def test_full_fine_tunes_are_not(dtype: torch.dtype, decay: float, size: float):
    found = inspected([full_update(seed, size, decay) for seed in (1, 2)], dtype)
    assert adapter_ranks(found) == [None, None]
    assert full_fine_tunes(found) == [True, True]


def test_one_merged_adapter_among_full_fine_tunes():
    found = inspected([adapter_update(1, 0.02), full_update(5, 0.02, 0.3)], torch.bfloat16)
    verdict = decide(found)
    assert verdict.headline.startswith(
        "Merge these 2 full fine-tunes and LoRA adapters with `tsvm`"
    )
    assert "input-b changed in many directions. input-a is of low rank (up to " in (
        verdict.answers[3].reason
    )


def test_rank_tolerance_leaves_out_rounding_errors():
    small = decide(inspected([adapter_update(s, 0.008) for s in (1, 3)], torch.bfloat16)).changes
    large = decide(inspected([adapter_update(s, 0.1) for s in (1, 3)], torch.float16)).changes
    assert small is not None
    assert large is not None
    assert 0.05 < small.settings["rank_tolerance"] <= 0.3
    assert "rank_tolerance" not in large.settings


def test_most_of_the_norm_decides():
    """A small weight that rounding drowns does not hide that the others are of low rank."""
    (base,) = gaussian(SHAPE, 1, 99)
    updates = [adapter_update(seed, 0.03) for seed in (1, 3)]
    tiny = [full_update(seed, 0.0005, 0.1) for seed in (5, 6)]
    weights = [checkpoints(base, each, torch.bfloat16) for each in (updates, updates, tiny)]
    assert None not in adapter_ranks(inspection(*weights))
    large = [full_update(seed, 0.03, 0.1) for seed in (5, 6)]
    weights = [checkpoints(base, each, torch.bfloat16) for each in (updates, large)]
    assert adapter_ranks(inspection(*weights)) == [None, None]


def test_adapters_in_factors_are_not_compared_with_rounding():
    (base,) = gaussian(SHAPE, 1, 99)
    B, A = gaussian((SHAPE[0], RANK), 1)[0].float(), gaussian((RANK, SHAPE[1]), 1)[0].float()
    full = checkpoints(base, [full_update(5, 0.02, 0.3)], torch.bfloat16)
    found = inspection([FactoredDelta(0.01 * B, A), *full])
    assert found.weights[0].roundings[0] is None
    assert adapter_ranks(found) == [None, None]
    assert full_fine_tunes(found) == [False, True]
    assert "The others are adapters." in decide(found).answers[3].reason


@given(
    st.sampled_from(DTYPES[:2]),
    st.integers(-10, 3),
    st.integers(0, 1000),
)
def test_rounding_norm_is_that_of_the_errors(dtype: torch.dtype, exponent: int, seed: int):
    (weight,) = gaussian((64, 64), 1, seed)
    exact = (2.0**exponent * weight).double()
    rounded = exact.to(dtype)
    error = float((rounded.double() - exact).norm())
    assert rounding_norm(rounded) == pytest.approx(error, rel=0.1)
    assert rounding_norm(rounded.float()) == rounding_norm(rounded)
