"""Pruned shares and ranks of small matrices with known values."""

from __future__ import annotations

import pytest
import torch

from mergekit_spectral.inspecting.measures import effective_rank, stable_rank
from mergekit_spectral.inspecting.pruned_rows import BINS, PrunedRows, pruned_shares
from mergekit_spectral.spectral import HeldEntries


def test_pruned_shares_of_rows():
    large = torch.tensor([[8.0, -7.0, 6.0, 5.0], [4.0, 1.0, -1.0, 1.0]])
    small = torch.tensor([[3.0, -2.0, 0.5, 0.5], [0.0, 0.0, 0.0, 0.0]])
    # Half of the 16 entries are to be kept. The threshold is 1, which three entries have: all of
    # them are kept.
    shares = pruned_shares(HeldEntries([large, small]), 0.5)
    assert shares.tolist() == [[0, 0], [0.5, 1]]
    assert pruned_shares(HeldEntries([large, small]), 1.0).sum() == 0


def test_statistics_of_pruned_rows():
    rows = PrunedRows.of(torch.tensor([[0.0, 0.5], [0.5, 1.0]], dtype=torch.float64))
    assert (rows.mean, rows.whole) == (0.5, 0.25)
    assert rows.spread == pytest.approx(0.125**0.5, abs=1e-4)
    assert PrunedRows.of(torch.tensor([0.5])).spread == 0
    expected = [0.0] * BINS
    expected[0] = expected[-1] = 0.25
    expected[BINS // 2] = 0.5
    assert list(rows.histogram) == expected


def test_effective_rank():
    assert effective_rank(torch.ones(7, dtype=torch.float64)) == pytest.approx(7)
    assert effective_rank(torch.tensor([5.0, 0.0, 0.0])) == pytest.approx(1)


def test_stable_rank():
    assert stable_rank(torch.ones(7, dtype=torch.float64)) == pytest.approx(7)
    assert stable_rank(torch.tensor([2.0, 1.0, 0.0])) == pytest.approx(1.25)
