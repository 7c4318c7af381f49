"""How the tensors of a merge were merged, counted while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """How much of a model was merged how.

    Attributes:
        matrices: number of matrices that were merged in spectral space. A stack of experts counts
            as many as it has.
        elementwise: number of tensors that were merged entry by entry.
        copied: number of tensors that are the base's, because no input changes them or has them.
    """

    matrices: int = 0
    elementwise: int = 0
    copied: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.matrices + other.matrices,
            self.elementwise + other.elementwise,
            self.copied + other.copied,
        )

    def __str__(self) -> str:
        return (
            f"{_number(self.matrices, 'matrix', 'matrices')} in spectral space, "
            f"{_number(self.elementwise, 'tensor', 'tensors')} entry by entry, "
            f"{_number(self.copied, 'tensor', 'tensors')} copied from the base"
        )


class Tally:
    """Counts how each tensor of a merge was merged. Any thread may add to it."""

    def __init__(self) -> None:
        self._merged: dict[str, int] = {}
        self._saved: set[str] = set()

    def merged(self, name: str, matrices: int) -> None:
        """Add a tensor that a method has merged.

        Args:
            name: the tensor's, in the merged model.
            matrices: how many it was merged as; 0 if it was merged entry by entry.
        """
        self._merged[name] = matrices

    def saved(self, name: str) -> None:
        """Add a tensor that is in the merged model, however it was made."""
        self._saved.add(name)

    def counts(self) -> Counts:
        """Return the numbers so far."""
        return Counts(
            matrices=sum(self._merged.values()),
            elementwise=sum(not matrices for matrices in self._merged.values()),
            copied=len(self._saved - self._merged.keys()),
        )


_tallies: list[Tally] = []


@contextmanager
def tally() -> Iterator[Tally]:
    """Count what this process merges within this context.

    All threads are counted: mergekit merges with one for each GPU, which inherit no context.
    """
    new = Tally()
    _tallies.append(new)
    try:
        yield new
    finally:
        _tallies[:] = [each for each in _tallies if each is not new]


def add_merged(name: str | None, matrices: int) -> None:
    """Add a tensor to all tallies, as `Tally.merged`. In-memory merges may have no names."""
    for each in _tallies:
        each.merged(name or "", matrices)


def add_saved(name: str) -> None:
    """Add a tensor to all tallies, as `Tally.saved`."""
    for each in _tallies:
        each.saved(name)


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
