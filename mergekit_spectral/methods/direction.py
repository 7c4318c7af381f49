"""The side that the inputs share: the left basis (horizontal) or the right one (vertical).

Only horizontal is implemented; vertical is horizontal on the transposes, transposed back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeVar

from mergekit_spectral.methods.base import Settings, SpectralMethod
from mergekit_spectral.spectral import Delta

M = TypeVar("M", bound=SpectralMethod)
MatrixMerge = Callable[[M, Sequence[Delta], Settings], Delta]


def along_shared_side(merge_horizontal: MatrixMerge[M]) -> MatrixMerge[M]:
    """Make a horizontal merge of matrices follow the recipe's ``direction``."""

    @wraps(merge_horizontal)
    def merge(self: M, deltas: Sequence[Delta], settings: Settings) -> Delta:
        if shared_side(settings["direction"], deltas[0].shape) == "horizontal":
            return merge_horizontal(self, deltas, settings)
        return merge_horizontal(self, [delta.T for delta in deltas], settings).T

    return merge


def shared_side(direction: str, shape: tuple[int, int]) -> str:
    """Resolve ``auto``: the direction whose shared side is smaller, horizontal on a tie."""
    if direction != "auto":
        return direction
    out_features, in_features = shape
    return "horizontal" if out_features <= in_features else "vertical"


def shared_lengths(direction: str, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the lengths of the side that the inputs share, and of the other one."""
    out_features, in_features = shape
    if shared_side(direction, shape) == "horizontal":
        return out_features, in_features
    return in_features, out_features
