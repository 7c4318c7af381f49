"""What the inputs are compared by, entry by entry: their deltas, or their coordinates.

Entries are computed when they are needed, a few rows of all inputs at a time: all of them would
take T matrices in the working dtype.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mergekit_spectral.spectral.deltas import Delta, FactoredDelta
from mergekit_spectral.spectral.numerics import has_float64
from mergekit_spectral.spectral.svd.joint import (
    JointDecomposition,
    row_lengths,
    without_noise,
)


@dataclass(frozen=True)
class Rows:
    """The same few rows of all inputs.

    Attributes:
        values: T matrices [rows, columns] in the working dtype.
        units: the length that each row's values are divided by when magnitudes are compared: T
            columns [rows, 1], 0 for a row of zeros; in float64 where the device has it. None if
            magnitudes are compared as they are.
        errors: how far the values may be from exact ones: T rows [1, columns], or T columns
            [rows, 1] if each row is one place. None if they are exact, or their error is unknown.
    """

    values: list[Tensor]
    units: list[Tensor] | None = None
    errors: list[Tensor] | None = None

    def __getitem__(self, rows: slice) -> Rows:
        # The errors of all rows are the same, unless the rows are single places.
        assert self.errors is None or len(self.errors[0]) == 1
        units = None if self.units is None else [unit[rows] for unit in self.units]
        return Rows([values[rows] for values in self.values], units, self.errors)

    def at(self, places: Tensor) -> Rows:
        """Return single places of the flattened rows, each as a row of its own."""

        def at_places(parts: list[Tensor] | None) -> list[Tensor] | None:
            if parts is None:
                return None
            row, column = places // shape[1], places % shape[1]
            return [part.expand(shape)[row, column][:, None] for part in parts]

        shape = self.values[0].shape
        values = [values.flatten()[places][:, None] for values in self.values]
        return Rows(values, at_places(self.units), at_places(self.errors))

    def largest(self, count: int) -> Tensor:
        """Return at most `count` places of the flattened rows: those with the largest values."""
        sizes = torch.stack(self.values).abs().amax(dim=0).flatten()
        return sizes.topk(min(len(sizes), count)).indices

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """Return the rows of several parts, one part below the other."""

        def join(lists: Sequence[list[Tensor] | None]) -> list[Tensor] | None:
            present = [tensors for tensors in lists if tensors is not None]
            return [torch.cat(own) for own in zip(*present, strict=True)] if present else None

        values = [torch.cat(own) for own in zip(*(part.values for part in parts), strict=True)]
        return Rows(values, join([p.units for p in parts]), join([p.errors for p in parts]))

    def magnitudes(self) -> list[Tensor]:
        """Return the numbers that pruning compares, T new matrices."""
        if self.units is None:
            return [values.abs() for values in self.values]
        pairs = zip(self.values, self.inverse_units, strict=True)
        return [(values * inverse.to(values.dtype)).abs_() for values, inverse in pairs]

    @cached_property
    def inverse_units(self) -> list[Tensor]:
        """1 / unit, and 0 for a row of zeros. Only if there are units."""
        assert self.units is not None
        return list(map(inverse_of, self.units))


def inverse_of(units: Tensor) -> Tensor:
    """Return 1 / unit, and 0 for the unit of a row of zeros."""
    return torch.where(units > 0, 1 / units, 0)


class Entries(ABC):
    """The entries of T inputs, each a matrix of `rows` × `columns`.

    Attributes:
        inputs: T.
        shape: (rows, columns), the shape of one input's entries.
        numel: the number of entries of one input.
        total: the number of entries of all inputs together.
        cheap: whether computing them twice costs less than remembering many of them.
        errors: how far each input's values may be from exact ones, T rows [1, columns]. None if
            they are exact, or if `exact` is not available.
        work: multiplications for one exact value.
        unit_work: multiplications for one exact unit. Only for entries whose `Rows` have units.
    """

    cheap: bool
    errors: list[Tensor] | None = None
    work: int = 1
    unit_work: int = 1

    def __init__(self, inputs: int, rows: int, columns: int):
        self.inputs = inputs
        self.shape = (rows, columns)
        self.numel = rows * columns
        self.total = inputs * self.numel

    @abstractmethod
    def take(self, rows: slice) -> Rows:
        """Compute some rows of all inputs."""

    def of_input(self, t: int) -> Entries:
        """Return the entries of one input. Only for entries that are computed from deltas."""
        raise NotImplementedError

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        """Return single values of all inputs in float64, T columns [n, 1].

        Only for entries with `errors`.

        Args:
            rows: n indices.
            columns: n indices.
        """
        raise NotImplementedError

    def exact_units(self, t: int, rows: Tensor) -> Tensor:
        """Return the units of n different rows of input t in float64, [n].

        Only for entries whose `Rows` have units.
        """
        raise NotImplementedError


class HeldEntries(Entries):
    """Matrices that are in memory anyway."""

    cheap = True

    def __init__(self, values: Sequence[Tensor]):
        rows, columns = values[0].shape
        super().__init__(len(values), rows, columns)
        self.values = list(values)

    def take(self, rows: slice) -> Rows:
        return Rows(self.values, errors=self.errors)[rows]


class DeltaEntries(Entries):
    """The deltas themselves."""

    cheap = True

    def __init__(self, deltas: Sequence[Delta]):
        super().__init__(len(deltas), *deltas[0].shape)
        self.deltas = deltas

    def take(self, rows: slice) -> Rows:
        return Rows([delta.rows(rows).to_dense() for delta in self.deltas])

    def of_input(self, t: int) -> DeltaEntries:
        return DeltaEntries([self.deltas[t]])


class Coordinates(Entries):
    """The inputs' coordinates in their joint basis, diag(s)·V_tᵀ (KnOTS, §4)."""

    cheap = False

    def __init__(self, joint: JointDecomposition, deltas: Sequence[Delta]):
        out_features, in_features = deltas[0].shape
        super().__init__(len(deltas), joint.basis.shape[1], in_features)
        self.work = out_features
        factored = all(isinstance(delta, FactoredDelta) for delta in deltas)
        self.unit_work = self.numel if factored else out_features * in_features
        self.joint = joint
        self.deltas = deltas
        if joint.basis.dtype != torch.float64 and has_float64(joint.basis.device):
            # A projection's error is that of a sum of `out` products. Measured, it is 6 eps of the
            # column's root mean square.
            error = 30 * torch.finfo(joint.basis.dtype).eps / out_features**0.5
            self.errors = [error * delta.rounding_norms.to(joint.basis)[None] for delta in deltas]

    def take(self, rows: slice) -> Rows:
        values = [self.joint.coordinates(delta, rows) for delta in self.deltas]
        return Rows(values, errors=self.errors)

    def of_input(self, t: int) -> Coordinates:
        return type(self)(self.joint, [self.deltas[t]])

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        basis, place = self.joint.finest_basis, columns.cpu()
        values = torch.cat([delta.projected_at(basis, rows, columns) for delta in self.deltas])
        norms = torch.cat([delta.column_norms[place] for delta in self.deltas])
        return list(torch.split(without_noise(values[None], norms).T, len(rows)))


class RenormalizedCoordinates(Coordinates):
    """Coordinates that are compared as if their rows had unit length (DRM, "Renormalize").

    With n_{t,i} the norm of row i of V_tᵀ, the row's length is the renormalized singular value
    s̃_{t,i} = s_i·n_{t,i}, and dividing by it gives the row of Ṽ_t. Over all inputs the squares of
    n_{t,i} sum to 1. A row of zeros, of an input that has no part in that direction, stays zero.

    Only the comparison divides. The values are diag(s̃_t)·Ṽ_t throughout, so nothing is scaled back
    after pruning.
    """

    def take(self, rows: slice) -> Rows:
        taken = super().take(rows)
        return replace(taken, units=[row_lengths(v)[:, None] for v in taken.values])

    def exact_units(self, t: int, rows: Tensor) -> Tensor:
        return self.deltas[t].projected_lengths(self.joint.finest_basis, rows)


class UnnormalizedCoordinates(Coordinates):
    """Coordinates that are compared by the entries of V_tᵀ (DRM without "Renormalize")."""

    def take(self, rows: slice) -> Rows:
        singular_values = self.joint.spectrum[: self.shape[0]][rows, None]
        return replace(super().take(rows), units=[singular_values] * self.inputs)

    def exact_units(self, t: int, rows: Tensor) -> Tensor:
        return self.joint.spectrum[rows]


class SparsifiedEntries(HeldEntries):
    """Other entries after sparsification, each input's scaled by a factor.

    Args:
        entries: before sparsification, of T inputs.
        sparsified: for each input its entries, with zeros where they were dropped, and its factor.
    """

    def __init__(self, entries: Entries, sparsified: Sequence[tuple[Tensor, float]]):
        super().__init__([values.mul_(factor) for values, factor in sparsified])
        self.work = entries.work
        self.factors = [factor for _, factor in sparsified]
        self.entries = entries
        if entries.errors is not None:
            self.errors = [f * e for f, e in zip(self.factors, entries.errors, strict=True)]

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        exact = self.entries.exact(rows, columns)
        return [factor * values for factor, values in zip(self.factors, exact, strict=True)]


class DroppedEntries(Entries):
    """Other entries, some of which are dropped when they are computed.

    Args:
        entries: of T inputs.
        drop: a function of t and some of input t's values, which returns them with some set to 0.
    """

    def __init__(self, entries: Entries, drop: Callable[[int, Tensor], Tensor]):
        super().__init__(entries.inputs, *entries.shape)
        self.entries = entries
        self.drop = drop
        self.cheap = entries.cheap
        self.work = entries.work
        self.errors = entries.errors

    def take(self, rows: slice) -> Rows:
        taken = self.entries.take(rows)
        return replace(taken, values=[self.drop(t, v) for t, v in enumerate(taken.values)])

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        return self.entries.exact(rows, columns)
