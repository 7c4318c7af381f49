"""Agreement in sign, counted by hand."""

from __future__ import annotations

import torch

from benchmarks.quality.analysing.sign_agreement import SignAgreement, sign_agreement


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
