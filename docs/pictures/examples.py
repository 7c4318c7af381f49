"""The matrices that are drawn: small made-up updates, and layers of the demo's three adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mergekit.merge_methods import merge_tensors
from safetensors import safe_open
from torch import Tensor

from mergekit_spectral.spectral import (
    DenseDelta,
    FactoredDelta,
    JointDecomposition,
    above_tolerance,
    joint_decomposition,
)

ROOT = Path(__file__).parents[2]
ADAPTERS = ("numbers", "plurals", "sentiment")


@dataclass(frozen=True)
class JointSpace:
    """Updates in the basis that they share.

    Attributes:
        joint: U, and the singular values of the updates side by side.
        coordinates: diag(s)·V_tᵀ of each update, [k, in].
    """

    joint: JointDecomposition
    coordinates: list[Tensor]

    @property
    def values(self) -> Tensor:
        """The k singular values."""
        return self.joint.spectrum[: len(self.coordinates[0])]


def in_joint_space(updates: Sequence[Tensor], rank_tolerance: float) -> JointSpace:
    """Decompose updates together.

    Args:
        updates: T matrices [out, in] in float64.
        rank_tolerance: the method's.
    """
    deltas = [DenseDelta(update) for update in updates]
    joint = joint_decomposition(deltas, above_tolerance(rank_tolerance))
    # The signs of singular vectors are arbitrary. Here, each vector's largest entry is positive.
    largest = joint.basis.abs().argmax(dim=0)
    signs = joint.basis[largest, torch.arange(len(largest))].sign()
    fixed = JointDecomposition(joint.basis * signs, joint.spectrum)
    return JointSpace(fixed, [fixed.coordinates(delta) for delta in deltas])


def merge(method: str, updates: Sequence[Tensor], **parameters: float) -> Tensor:
    """Merge updates by a method of mergekit or of this package, with weights of 1."""
    values = {"weight": 1.0, **parameters}
    base = torch.zeros_like(updates[0])
    merged: Tensor = merge_tensors([base, *updates], method, base_index=0, parameters=values)
    return merged


def random(seed: int, *shape: int) -> Tensor:
    """Return normal numbers in float64, the same in each run and version."""
    # NumPy does not change the numbers of this generator; PyTorch may change those of its own.
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def orthonormal(columns: Tensor) -> Tensor:
    """Make columns orthonormal, each within the plane of itself and those before."""
    Q, R = torch.linalg.qr(columns)
    signed: Tensor = Q * R.diagonal().sign()  # which LAPACK chooses
    return signed


def adapter_updates(layer: int, weight: str) -> list[FactoredDelta]:
    """Return the updates of one weight in the demo's three adapters."""
    updates = []
    for name in ADAPTERS:
        file = ROOT / "recipes" / "smollm2" / "adapters" / name / "adapter_model.safetensors"
        key = f"base_model.model.model.layers.{layer}.{weight}"
        with safe_open(file, "pt") as opened:
            A, B = (opened.get_tensor(f"{key}.lora_{factor}.weight").double() for factor in "AB")
        updates.append(FactoredDelta(B, A))  # r and α are 4, so that the scale is 1
    return updates
