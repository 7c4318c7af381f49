"""Pruned shares, agreement in sign and effective ranks of hand-made matrices."""

from __future__ import annotations

import pytest
import reference
import torch
from matrices import gaussian, orthogonal

from benchmarks.quality.analysing import matrices
from benchmarks.quality.analysing.matrices import (
    SPACES,
    analyse_matrix,
    effective_rank,
    trimmed_alone,
)
from benchmarks.quality.analysing.pruned_rows import BINS, PrunedRows, pruned_shares
from benchmarks.quality.analysing.sign_agreement import SignAgreement, sign_agreement
from mergekit_spectral.spectral import DenseDelta, HeldEntries


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


def test_trimming_keeps_the_largest():
    values = torch.tensor([[1.0, -5.0], [0.0, 3.0]])
    assert trimmed_alone(values, 0.5).tolist() == [[0, -5], [0, 3]]
    assert torch.equal(trimmed_alone(values, 1.0), values)


def test_renormalization_evens_out_what_is_pruned():
    # Each input has a direction of its own and a small part in the other's.
    n = 64
    right = orthogonal(n)
    strong, weak = 1.0, 0.05
    deltas = [
        torch.outer(torch.eye(8, dtype=torch.float64)[0], strong * right[0])
        + torch.outer(torch.eye(8, dtype=torch.float64)[1], weak * right[1]),
        torch.outer(torch.eye(8, dtype=torch.float64)[0], weak * right[2])
        + torch.outer(torch.eye(8, dtype=torch.float64)[1], strong * right[3]),
    ]
    analysis = analyse_matrix("full", "w", [DenseDelta(delta) for delta in deltas])
    assert analysis.directions == 2
    for rows in (analysis.renormalized, analysis.unrenormalized):
        assert rows.mean == pytest.approx(0.5, abs=0.01)
    assert analysis.renormalized.whole == 0
    assert analysis.renormalized.spread < 0.1
    assert analysis.unrenormalized.spread > 0.4
    _, _, blocks = reference.joint_svd(deltas, matrices.RANK_TOLERANCE)
    kept = [row != 0 for row in reference.prune(blocks, matrices.PRUNED_TO)]
    shares = 1 - torch.stack(kept).double().mean(dim=2)
    assert analysis.unrenormalized == PrunedRows.of(shares)


def test_equal_inputs_agree_everywhere():
    (delta,) = gaussian((10, 12), 1)
    analysis = analyse_matrix("lora", "w", [DenseDelta(delta)] * 3)
    assert analysis.inputs == 3
    assert [analysis.agreement[space].mean for space in SPACES] == [1] * len(SPACES)
    spectrum = torch.linalg.svdvals(delta)
    expected = effective_rank(spectrum)
    assert analysis.effective_ranks == pytest.approx([expected] * 3, abs=0.01)
    assert analysis.joint_effective_rank == pytest.approx(expected, abs=0.01)
