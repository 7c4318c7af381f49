"""The papers' analyses of hand-made matrices."""

from __future__ import annotations

import pytest
import reference
import torch
from support.matrices import gaussian, orthogonal

from benchmarks.quality.analysing import matrices
from benchmarks.quality.analysing.matrices import SPACES, analyse_matrix, trimmed_alone
from mergekit_spectral.inspecting.measures import effective_rank
from mergekit_spectral.inspecting.pruned_rows import PrunedRows
from mergekit_spectral.spectral import DenseDelta


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
    _, C = reference.joint_svd(deltas, matrices.RANK_TOLERANCE)
    s = torch.cat(C, dim=1).norm(dim=1, keepdim=True)
    kept = [row != 0 for row in reference.prune([c / s for c in C], matrices.PRUNED_TO)]
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
