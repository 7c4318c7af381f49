"""Deltas with exact ties at thresholds or in sign elections, or with rounding noise as entries."""

from __future__ import annotations

import torch
from support.matrices import gaussian
from torch import Tensor

OUT, IN, T = 24, 40, 3
Factors = list[tuple[Tensor, Tensor]]


def full(seed: int) -> list[Tensor]:
    return gaussian((OUT, IN), T, seed)


def rank_1(seed: int) -> list[Tensor]:
    return [B @ A for B, A in factors_of_rank(1, seed)]


def sparse(seed: int) -> list[Tensor]:
    """Return deltas with 2% nonzero entries: most directions have few nonzero entries."""
    masks = torch.rand(T, OUT, IN, generator=torch.Generator().manual_seed(seed)) < 0.02
    return [delta * mask for delta, mask in zip(full(seed), masks, strict=True)]


def equal(seed: int) -> list[Tensor]:
    first, second, _ = full(seed)
    return [first, second, first]


def negated(seed: int) -> list[Tensor]:
    first, second, _ = full(seed)
    return [first, second, -first]


def scaled(seed: int) -> list[Tensor]:
    first, second, _ = full(seed)
    return [first, second, 3 * first]


def signs(seed: int) -> list[Tensor]:
    return [delta.sign() for delta in full(seed)]


def single_row(seed: int) -> list[Tensor]:
    return gaussian((1, IN), T, seed)


def single_column(seed: int) -> list[Tensor]:
    return gaussian((OUT, 1), T, seed)


KINDS = {
    make.__name__: make
    for make in (equal, negated, scaled, rank_1, sparse, signs, single_row, single_column)
}


def factors_of_rank(rank: int, seed: int) -> Factors:
    left, right = gaussian((OUT, rank), T, seed), gaussian((rank, IN), T, seed + 1)
    return list(zip(left, right, strict=True))


def factors_that_cancel(size: float) -> Factors:
    """Return factors like those of converted PiSSA adapters, in float32.

    The update is the difference of the final and the initial product, and `size` is the relative
    change of the factors. The smaller it is, the more digits cancel.
    """
    factors = []
    for t in range(T):
        B0, B1 = (x.float() for x in gaussian((96, 8), 2, 10 * t))
        A0, A1 = (x.float() for x in gaussian((8, 96), 2, 10 * t + 5))
        factors.append((torch.cat([B0 + size * B1, -B0], 1), torch.cat([A0 + size * A1, A0])))
    return factors
