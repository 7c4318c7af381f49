"""How far inputs agree in sign, place by place (DRM, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 11
"""The middle of the first is 0.5, that of the last 1."""
_HALF = 0.5 / (BINS - 1) / 2


@dataclass(frozen=True)
class SignAgreement:
    """The shares of inputs with the sign of the majority, over all places.

    At a place only inputs that are not zero there count, each for one. Half of them is the least,
    where both signs are as frequent; a place with a single input has a share of 1.

    Attributes:
        mean: over the places with any input.
        shared_mean: over the places with two inputs or more; None if there are none.
        single: the share of places with one input among those with any.
        histogram: the share of places in each of `BINS` bins around 0.5 to 1, of those with any.
    """

    mean: float
    shared_mean: float | None
    single: float
    histogram: tuple[float, ...]


def sign_agreement(values: Sequence[Tensor]) -> SignAgreement:
    """Compare the signs of T tensors of one shape, not all zero."""
    positive = torch.stack([v > 0 for v in values]).sum(dim=0)
    negative = torch.stack([v < 0 for v in values]).sum(dim=0)
    inputs = positive + negative
    share = (torch.maximum(positive, negative) / inputs)[inputs > 0].double()
    shared = share[inputs[inputs > 0] > 1]
    counts = torch.histc(share, BINS, 0.5 - _HALF, 1 + _HALF)
    return SignAgreement(
        mean=round(float(share.mean()), 4),
        shared_mean=round(float(shared.mean()), 4) if len(shared) else None,
        single=round(1 - len(shared) / len(share), 4),
        histogram=tuple(round(x, 5) for x in (counts / len(share)).tolist()),
    )
