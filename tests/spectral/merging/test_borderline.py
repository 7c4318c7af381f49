"""Borderline entries, which rounding in float32 could decide wrongly, are decided in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support.matrices import gaussian, orthogonal
from torch import Tensor

from mergekit_spectral.spectral import (
    Coordinates,
    DenseDelta,
    FactoredDelta,
    JointDecomposition,
    KeptRange,
    RenormalizedCoordinates,
    TensorOutput,
    above_tolerance,
    disjoint_mean,
    joint_decomposition,
    merge_entries,
)
from mergekit_spectral.spectral.merging.borderline import Borderline
from mergekit_spectral.spectral.numerics import STREAM_BLOCK, smaller_blocks

OUT, IN, T = 96, 80, 3


def coordinates(kind: type[Coordinates], seed: int = 0) -> Coordinates:
    """Return coordinates of deltas with bfloat16 values, in a basis with float32 values."""
    tensors = [tensor.bfloat16().float() for tensor in gaussian((OUT, IN), T, seed)]
    basis = orthogonal(OUT, seed).float()
    joint = JointDecomposition(basis, torch.ones(OUT, dtype=torch.float64))
    return kind(joint, [DenseDelta(tensor) for tensor in tensors])


def exact_values(entries: Coordinates) -> list[Tensor]:
    """Compute the coordinates of each input in float64."""
    U = entries.joint.basis.double()
    return [U.T @ delta.to_dense().double() for delta in entries.deltas]


def merged(entries: Coordinates, j: int, divisor: int = 1) -> Tensor:
    """Keep the entries from the j-th smallest on (all if j is 0); return their disjoint mean."""
    result = torch.empty(entries.shape)
    merge = partial(disjoint_mean, weights=[1.0] * T)
    with smaller_blocks(divisor):
        merge_entries(entries, merge, TensorOutput(result), KeptRange(j), votes=[1.0] * T)
    return result


def add_errors(entries: Coordinates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add errors to the values, and make `entries` declare these errors as its error bounds.

    The errors are as large as the bounds allow, and 1000 times larger than float32's.
    """
    take = entries.take
    assert entries.errors is not None
    errors = [1000 * error for error in entries.errors]
    monkeypatch.setattr(entries, "errors", errors)

    def take_with_errors(rows: slice):
        taken = take(rows)
        for t, values in enumerate(taken.values):
            noise = torch.rand(values.shape, generator=torch.Generator().manual_seed(t))
            values += errors[t] * (2 * noise - 1)
        return taken

    monkeypatch.setattr(entries, "take", take_with_errors)


@pytest.mark.parametrize("kind", [Coordinates, RenormalizedCoordinates])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("divisor", [1, STREAM_BLOCK // 3000])
def test_decisions_are_those_of_exact_values(
    kind: type[Coordinates], share: float, divisor: int, monkeypatch: pytest.MonkeyPatch
):
    """Errors of 2e-3 of the values' size change no decision, but would without exact values."""
    j = round(share * T * OUT * IN)
    changed = 0
    for seed in range(8):
        entries = coordinates(kind, seed)
        exact = exact_values(entries)
        lengths = [x.norm(dim=1, keepdim=True) for x in exact]
        units = lengths if kind is RenormalizedCoordinates else [torch.ones(1)] * T
        magnitudes = [x.abs() / unit for x, unit in zip(exact, units, strict=True)]
        threshold = torch.cat([m.flatten() for m in magnitudes]).sort().values[j - 1] if j else 0
        pruned = [torch.where(m >= threshold, x, 0) for m, x in zip(magnitudes, exact, strict=True)]
        expected = disjoint_mean(pruned, [1.0] * T).float()

        add_errors(entries, monkeypatch)
        torch.testing.assert_close(merged(entries, j, divisor), expected, rtol=0, atol=0.01)
        with monkeypatch.context() as without:
            without.setattr(Borderline, "decided", lambda *_: None)
            rounded = merged(entries, j, divisor)
        changed += int(((rounded - expected).abs() > 0.01).sum())
    assert changed


def test_single_entries_of_a_projection():
    (basis,) = gaussian((20, 6), 1)
    B, A = gaussian((20, 3), 1)[0], gaussian((3, 30), 1)[0]
    rows, columns = torch.tensor([0, 5, 2, 2]), torch.tensor([7, 0, 29, 29])
    expected = (basis.T @ B @ A)[rows, columns]
    base = gaussian((20, 30), 1, seed=1)[0]
    for delta in (FactoredDelta(B, A), DenseDelta(B @ A), DenseDelta(B @ A + base, base)):
        torch.testing.assert_close(delta.projected_at(basis, rows, columns), expected)


def test_difference_is_exact():
    """In float32, 2²⁴ - 0.1 would be rounded to 2²⁴."""
    delta = DenseDelta(torch.tensor([[2.0**24]]), torch.tensor([[0.1]]))
    one, first = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
    expected = 2.0**24 - torch.tensor(0.1).double().item()
    assert delta.projected_at(one, first, first).item() == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_float64_values_have_no_borderline_entries(dtype: torch.dtype):
    tensors = [tensor.to(dtype) for tensor in gaussian((8, 6), 2)]
    joint = JointDecomposition(orthogonal(8).to(dtype), torch.ones(8).double())
    entries = Coordinates(joint, [DenseDelta(tensor) for tensor in tensors])
    assert (entries.errors is None) == (dtype == torch.float64)


def test_rounding_noise_does_not_vote():
    """If an input is zero in a direction, its rounding noise is not replaced by exact values."""
    Q = orthogonal(32).float()
    A, B = (tensor.float() for tensor in gaussian((8, 48), 2))
    A[:, ::2] *= 1e-7  # borderline entries in every row
    deltas = [DenseDelta(Q[:, :8] @ A), DenseDelta(Q[:, 8:16] @ B)]
    joint = JointDecomposition(Q, torch.ones(32).double())
    entries = Coordinates(joint, deltas)
    result = torch.empty(entries.shape)
    merge_entries(
        entries, partial(disjoint_mean, weights=[1.0] * 2), TensorOutput(result), votes=[1.0] * 2
    )
    torch.testing.assert_close(result[:8], A, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result[8:16], B, rtol=1e-4, atol=1e-6)


def test_votes_that_cancel_in_float32_are_borderline():
    (tensor,) = gaussian((48, 48), 1)
    first = tensor.float()
    second = -(first.double() * (1 + 1e-7 * gaussian((48, 48), 1, seed=1)[0])).float()
    joint = JointDecomposition(torch.eye(48), torch.ones(48).double())
    entries = Coordinates(joint, [DenseDelta(first), DenseDelta(second)])
    result = torch.empty(entries.shape)
    merge_entries(
        entries, partial(disjoint_mean, weights=[1.0] * 2), TensorOutput(result), votes=[1.0] * 2
    )
    expected = disjoint_mean([first.double(), second.double()], [1.0] * 2).float()
    torch.testing.assert_close(result[:8], expected[:8])


def test_lengths_have_the_precision_of_float64():
    """An error of 6e-8 in a row's length can swap the order of the threshold and the next entry."""
    entries = coordinates(RenormalizedCoordinates)
    rows = entries.take(slice(0, OUT))
    assert rows.units is not None
    for values, units in zip(rows.values, rows.units, strict=True):
        expected = values.double().norm(dim=1, keepdim=True)
        torch.testing.assert_close(units, expected, rtol=1e-14, atol=0)


def test_decisions_use_the_float64_basis():
    """Rounding the basis to float32 must not change a decision."""
    deltas = coordinates(Coordinates).deltas
    joint = joint_decomposition(deltas, above_tolerance(0.0))
    assert joint.exact_basis is not None
    torch.testing.assert_close(joint.basis, joint.exact_basis.float(), rtol=0, atol=0)
    places = torch.arange(OUT), torch.arange(OUT) % IN
    exact = Coordinates(joint, deltas).exact(*places)
    for values, delta in zip(exact, deltas, strict=True):
        expected = (joint.exact_basis.T @ delta.to_dense().double())[places]
        torch.testing.assert_close(values[:, 0], expected, rtol=0, atol=1e-12)
    assert joint_decomposition(deltas, above_tolerance(0.0), exact=False).exact_basis is None
