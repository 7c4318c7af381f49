"""Prune and merge entries in blocks: with thresholds, samples, and both strategies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import HeldEntries, KeptRange, TensorOutput, merge_entries
from mergekit_spectral.spectral.merging.entries import Entries, Rows
from mergekit_spectral.spectral.numerics import STREAM_BLOCK, smaller_blocks


class CostlyEntries(HeldEntries):
    """Entries that declare that computing them is costly, and count how often each row is taken."""

    cheap = False

    def __init__(self, values: Sequence[Tensor]):
        super().__init__(values)
        self.taken = torch.zeros(self.shape[0], dtype=torch.int64)

    def take(self, rows: slice) -> Rows:
        self.taken[rows] += 1
        return super().take(rows)


def prune(entries: Entries, first: int | Sequence[int]) -> list[Tensor]:
    """Return each input after pruning.

    The merge function returns one input's values, so the merged entries are its pruned entries.
    """
    keep = KeptRange(first) if isinstance(first, int) else [KeptRange(own) for own in first]
    pruned = []
    for t in range(entries.inputs):
        result = torch.full(entries.shape, torch.nan, dtype=torch.float64)
        merge_entries(entries, lambda values, t=t: values[t], TensorOutput(result), keep)
        pruned.append(result)
    return pruned


def expected(tensors: Sequence[Tensor], j: int) -> list[Tensor]:
    magnitudes = torch.cat([tensor.abs().flatten() for tensor in tensors]).sort().values
    threshold = magnitudes[j - 1] if j else 0.0
    return [torch.where(tensor.abs() < threshold, 0, tensor) for tensor in tensors]


def equal(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


kinds = pytest.mark.parametrize("kind", [HeldEntries, CostlyEntries])
# All rows in one block; a few rows in a block; one row in a block.
divisors = pytest.mark.parametrize("divisor", [1, STREAM_BLOCK // 60, STREAM_BLOCK])


@kinds
@divisors
@given(tensors=delta_groups(), share=st.floats(0, 1))
def test_common_threshold(kind: type[Entries], divisor: int, tensors: list[Tensor], share: float):
    j = round(share * sum(tensor.numel() for tensor in tensors))
    with smaller_blocks(divisor):
        assert equal(prune(kind(tensors), j), expected(tensors, j))


@kinds
@divisors
@given(tensors=delta_groups(min_inputs=2, max_inputs=2), shares=st.tuples(*2 * [st.floats(0, 1)]))
def test_threshold_for_each_input(
    kind: type[Entries], divisor: int, tensors: list[Tensor], shares: tuple[float, float]
):
    first = [round(share * tensors[0].numel()) for share in shares]
    with smaller_blocks(divisor):
        pruned = prune(kind(tensors), first)
    assert equal(pruned, [expected([x], j)[0] for x, j in zip(tensors, first, strict=True)])


def long_tensors(kind: str) -> list[Tensor]:
    """Return three inputs with 3000 rows, of which every eleventh row is sampled."""
    tensors = gaussian((3000, 7), 3)
    rows = torch.arange(3000.0, dtype=torch.float64)[:, None]
    if kind == "falling":
        return [tensor / (1 + rows) for tensor in tensors]
    if kind == "misleading":  # the sampled rows differ from all others
        return [torch.where(rows % 11 == 5, 100 * tensor, tensor) for tensor in tensors]
    if kind == "quantized":
        return [(2 * tensor).round() for tensor in tensors]
    if kind == "mostly zero":
        return [torch.where(tensor.abs() < 1.5, 0, tensor) for tensor in tensors]
    return tensors


@kinds
@pytest.mark.parametrize("shape", ["normal", "falling", "misleading", "quantized", "mostly zero"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.8, 1.0])
def test_more_rows_than_are_sampled(kind: type[Entries], shape: str, share: float):
    tensors = long_tensors(shape)
    j = round(share * 3 * tensors[0].numel())
    with smaller_blocks(STREAM_BLOCK // 10_000):
        assert equal(prune(kind(tensors), j), expected(tensors, j))


def test_costly_rows_are_computed_once_outside_the_sample():
    entries = CostlyEntries(long_tensors("falling"))
    result = torch.empty(entries.shape, dtype=torch.float64)
    with smaller_blocks(STREAM_BLOCK // 10_000):
        merge_entries(entries, sum, TensorOutput(result), KeptRange(30_000))
    assert (entries.taken == 1).sum() > 2700
    assert entries.taken.max() == 2


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (KeptRange(last=0), []),
        (KeptRange(first=5), []),
        (KeptRange(last=1), [0]),
        (KeptRange(first=2, last=3), [1, 2]),
        (KeptRange(first=1, last=4), [0, 1, 2, 3]),
    ],
)
def test_limits_of_the_kept_range(keep: KeptRange, kept: list[int]):
    values = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    result = torch.empty_like(values)
    merge_entries(HeldEntries([values]), lambda tensors: tensors[0], TensorOutput(result), [keep])
    assert result.flatten().nonzero().flatten().tolist() == kept


@pytest.mark.parametrize("j", [0, 5])
def test_inputs_are_not_changed(j: int):
    tensors = gaussian((5, 4), 2)
    copies = [tensor.clone() for tensor in tensors]
    prune(HeldEntries(tensors), j)
    assert equal(tensors, copies)


def test_reference_has_the_papers_rule_for_the_threshold():
    """Entries below the j-th smallest are pruned, j = N − round(N·p). The j-th smallest is kept."""
    tensors = gaussian((5, 4), 3)
    for density, j in [(1.0, 0), (0.5, 30), (0.2, 48), (1e-9, 60)]:
        assert equal(reference.prune(tensors, density), prune(HeldEntries(tensors), j))
