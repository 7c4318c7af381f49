"""Pruned shares, agreement in sign, ranks and overlaps of hand-made matrices."""

from __future__ import annotations

import pytest
import torch

from mergekit_spectral.inspecting.pruned_rows import BINS, PrunedRows, pruned_shares
from mergekit_spectral.inspecting.sign_agreement import SignAgreement, sign_agreement
from mergekit_spectral.inspecting.spectra import effective_rank, stable_rank
from mergekit_spectral.spectral import HeldEntries


def test_pruned_shares_of_rows():
    large = torch.tensor([[8.0, -7.0, 6.0, 5.0], [4.0, 1.0, -1.0, 1.0]])
    small = torch.tensor([[3.0, -2.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    # Half of 16 entries are kept; the three of size 1 are more than there is room for, and ties
    # with the threshold stay.
    shares = pruned_shares(HeldEntries([large, small]), 0.5)
    assert shares.tolist() == [[0, 0], [0.5, 1]]
    assert pruned_shares(HeldEntries([large, small]), 1.0).sum() == 0


def test_pruned_rows_in_short():
    rows = PrunedRows.of(torch.tensor([[0.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    assert (rows.mean, rows.whole) == (0.5, 0.25)
    assert rows.spread == pytest.approx((0.5 / 3) ** 0.5, abs=1e-4)
    expected = [0.0] * BINS
    expected[0] = expected[-1] = 0.25
    expected[BINS // 2] = 0.5
    assert list(rows.histogram) == expected


def test_sign_agreement():
    values = torch.tensor(
        [
            [1.0, 1.0, 0.0, 0.0, 2.0],
            [2.0, -1.0, 0.0, -3.0, 1.0],
            [0.5, -9.0, 0.0, 0.0, 1.0],
            [1.0, 2.0, 0.0, 0.0, -1.0],
        ]
    )
    # In order: all agree, half do, none is there, one is there, three of four agree.
    assert sign_agreement(list(values)) == SignAgreement(
        mean=round((1 + 0.5 + 1 + 0.75) / 4, 4),
        shared_mean=0.75,
        single=0.25,
        histogram=(0.25, 0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0.5),
    )
    alone = sign_agreement([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])
    assert (alone.mean, alone.shared_mean, alone.single) == (1, None, 1)


def test_effective_rank():
    assert effective_rank(torch.ones(7, dtype=torch.float64)) == pytest.approx(7)
    assert effective_rank(torch.tensor([5.0, 0.0, 0.0])) == pytest.approx(1)


def test_stable_rank():
    assert stable_rank(torch.ones(7, dtype=torch.float64)) == pytest.approx(7)
    assert stable_rank(torch.tensor([2.0, 1.0, 0.0])) == pytest.approx(1.25)
