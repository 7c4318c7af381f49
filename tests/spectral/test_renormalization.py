from __future__ import annotations

import torch
from hypothesis import given
from matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import (
    DenseDelta,
    above_tolerance,
    joint_decomposition,
    renormalize,
)


@given(delta_groups())
def test_unit_rows_times_lengths(deltas: list[Tensor]):
    for coordinates in deltas:
        rows, lengths = renormalize(coordinates)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)).double())
        torch.testing.assert_close(rows * lengths, coordinates)


def test_zero_row_stays_zero():
    (coordinates,) = gaussian((4, 6), 1)
    coordinates[2] = 0
    rows, lengths = renormalize(coordinates)
    assert not rows[2].any()
    assert lengths[2] == 0
    assert rows.isfinite().all()


def test_rows_of_rounding_noise_are_zero():
    """Inputs with orthogonal left spaces have no part in each other's directions."""
    Q = torch.linalg.qr(gaussian((64, 8), 1)[0]).Q.float()
    A, B = (delta.float() for delta in gaussian((4, 48), 2, seed=1))
    deltas = [DenseDelta(Q[:, :4] @ A), DenseDelta(Q[:, 4:] @ B)]
    joint = joint_decomposition(deltas, above_tolerance(0.01))
    rows, _ = zip(*(renormalize(joint.coordinates(delta)) for delta in deltas), strict=True)
    assert [int(row.any(1).sum()) for row in rows] == [4, 4]
