"""The recipe's ``direction``: which side of a matrix the inputs share a basis of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from mergekit_spectral.methods.costs import TensorInputs
from mergekit_spectral.spectral import Delta

MatrixMerge = Callable[[Any, Sequence[Delta], Any], Delta]


def along_shared_side(merge_horizontal: MatrixMerge) -> MatrixMerge:
    """Make a merge along the left basis follow the recipe's ``direction``.

    A vertical merge is a horizontal one of the transposes, transposed back.
    """

    @wraps(merge_horizontal)
    def merge(self: Any, deltas: Sequence[Delta], settings: Any) -> Delta:
        if shared_side(settings["direction"], deltas[0].shape) == "horizontal":
            return merge_horizontal(self, deltas, settings)
        return merge_horizontal(self, [delta.T for delta in deltas], settings).T

    return merge


def shared_side(direction: str, shape: tuple[int, int]) -> str:
    """Resolve ``auto``: the direction with the smaller shared side, horizontal if equal.

    Args:
        direction: horizontal, where the inputs share the left basis; vertical, where they share the
            right one; or auto.
        shape: (out, in).
    """
    if direction != "auto":
        return direction
    out_features, in_features = shape
    return "horizontal" if out_features <= in_features else "vertical"


def shared_lengths(tensor: TensorInputs) -> tuple[int, int]:
    """Return the lengths of the side that the inputs share, and of the other one."""
    out_features, in_features = tensor.matrix_shape
    direction = tensor.settings.get("direction", "horizontal")
    if shared_side(direction, tensor.matrix_shape) == "horizontal":
        return out_features, in_features
    return in_features, out_features
