from __future__ import annotations

import torch
from hypothesis import given
from matrices import delta_groups, gaussian
from torch import Tensor

from mergekit_spectral.spectral import renormalize


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
