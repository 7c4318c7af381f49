"""Merge every kind of matrix with every method, and write the merged deltas to a file.

    python tests/processors/merges.py OUT.safetensors

`test_processors` runs this program with different instruction sets and numbers of threads.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

if __name__ == "__main__":  # pytest does the same for the tests
    sys.path.insert(0, str(Path(__file__).parents[1]))

from mergekit.merge_methods import registered_methods
from support.matrices import SPECTRA, with_spectrum
from support.merging import merge_matrices
from support.tied_deltas import KINDS, factors_of_rank, factors_that_cancel, full

from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.spectral import DenseDelta, FactoredDelta, shared_bases

DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def all_merges() -> dict[str, Tensor]:
    """Return the merged deltas, not yet rounded to the inputs' dtype, by the case's name."""
    inputs = {"full": full(1)} | {name: make(1) for name, make in KINDS.items()}
    inputs |= {kind: with_spectrum(kind, (48, 64), 3) for kind in SPECTRA}
    merged = {}
    for method in sorted(
        m.spec.name for m in registered_methods() if isinstance(m, SpectralMethod)
    ):
        density = {} if method in ("star", "iso", "tsvm", "actmat") else {"density": 0.4}
        for dtype in DTYPES:
            for name, deltas in inputs.items():
                dense = [DenseDelta(delta.to(dtype)) for delta in deltas]
                torch.manual_seed(0)
                merged[f"{name}, {dtype}, {method}"] = merge_matrices(dense, method, **density)
        factors = {"factored": factors_of_rank(4, 1)}
        factors |= {f"cancelling to {s}": factors_that_cancel(s) for s in (1e-2, 1e-3, 1e-5)}
        for name, pairs in factors.items():
            deltas = [FactoredDelta(B.float(), A.float()).without_cancellation() for B, A in pairs]
            torch.manual_seed(0)
            merged[f"{name}, {method}"] = merge_matrices(deltas, method, **density)
    return merged | all_projections()


def all_projections() -> dict[str, Tensor]:
    """Return deltas on bases that they share; some have directions that keep equally much."""
    eye = torch.eye(16)
    inputs = {
        "factored": factors_of_rank(4, 1),
        "cancelling": factors_that_cancel(1e-3),
        "orthogonal": [(s * eye[:, i : i + 1], eye[i : i + 1]) for i, s in enumerate((1, 3, 2))],
    }
    merged = {}
    for name, pairs in inputs.items():
        deltas = [FactoredDelta(B.float(), A.float()).without_cancellation() for B, A in pairs]
        for rank in (1, 2, 5):
            bases = shared_bases(deltas, [1.0] * len(deltas), rank)
            projected = torch.cat([bases.project(delta).to_dense() for delta in deltas])
            merged[f"{name}, projected to rank {rank}"] = projected
    return merged


if __name__ == "__main__":
    save_file({key: value.contiguous() for key, value in all_merges().items()}, sys.argv[1])
