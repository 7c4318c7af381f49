"""Random deltas, and deltas with the kinds of spectra that real deltas have."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

SPECTRA = ("gaussian", "low rank and noise", "power law", "eight decades", "lora in bfloat16")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(shape: tuple[int, ...], count: int, seed: int = 0) -> list[Tensor]:
    """Return `count` float64 tensors with independent normal entries."""
    return list(torch.randn(count, *shape, generator=generator(seed), dtype=torch.float64))


def orthogonal(size: int, seed: int = 0) -> Tensor:
    (entries,) = gaussian((size, size), 1, seed)
    return torch.linalg.qr(entries).Q


def with_spectrum(kind: str, shape: tuple[int, int], count: int, seed: int = 0) -> list[Tensor]:
    """Return `count` float64 deltas with entries of about 1e-3 and a spectrum of the given kind."""
    n = min(shape)
    deltas = []
    for i in range(count):
        s = seed * 1000 + i
        (noise,) = gaussian(shape, 1, s)
        rank = max(2, n // 16)
        B, A = gaussian((shape[0], rank), 1, s + 400)[0], gaussian((rank, shape[1]), 1, s + 500)[0]
        if kind == "gaussian":
            delta = noise
        elif kind == "low rank and noise":
            delta = B @ A / rank**0.5 + 0.02 * noise
        elif kind == "lora in bfloat16":
            weight = 30 * gaussian(shape, 1, seed + 900)[0].bfloat16()
            delta = (weight + B @ A).bfloat16().double() - weight.double()
        else:
            values = {
                "power law": torch.arange(1, n + 1).double() ** -1.5,
                "eight decades": torch.logspace(0, -8, n, dtype=torch.float64),
            }[kind]
            U, _, Vh = torch.linalg.svd(noise, full_matrices=False)
            delta = (U * values) @ Vh
        deltas.append(1e-3 * delta / delta.square().mean().sqrt())
    return deltas


@st.composite
def delta_groups(draw: st.DrawFn, min_inputs: int = 1, max_inputs: int = 4) -> list[Tensor]:
    """Draw float64 deltas [out, in] with 2 to 12 rows and columns, of full or low rank."""
    shape = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    count = draw(st.integers(min_inputs, max_inputs))
    seed = draw(st.integers(0, 2**20))
    if draw(st.booleans()):
        return gaussian(shape, count, seed)
    rank = draw(st.integers(1, 3))
    left, right = (
        gaussian((shape[0], rank), count, seed),
        gaussian((rank, shape[1]), count, seed + 1),
    )
    return [B @ A for B, A in zip(left, right, strict=True)]
