"""What inputs are compared by, entry by entry: their deltas, or their rows in the joint basis.

Entries are asked for a few rows at a time and made then, for all inputs at once: the whole of them
would be T matrices in the working dtype.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mergekit_spectral.spectral.decomposition import (
    JointDecomposition,
    row_lengths,
    without_noise,
)
from mergekit_spectral.spectral.delta import Delta


@dataclass(frozen=True)
class Rows:
    """The same few rows of all inputs.

    Attributes:
        values: T matrices [rows, columns] in the working dtype.
        units: the length that counts as 1 in each row when magnitudes are compared: T columns
            [rows, 1], 0 for a row of zeros; in float64 where the device has it. None where
            magnitudes are compared as they are.
        errors: how far the values may be from exact ones: T rows [1, columns], or [rows, 1] of
            single places. None where they are exact, or their error cannot be known.
    """

    values: list[Tensor]
    units: list[Tensor] | None = None
    errors: list[Tensor] | None = None

    def __getitem__(self, rows: slice) -> Rows:
        units = None if self.units is None else [unit[rows] for unit in self.units]
        return Rows([values[rows] for values in self.values], units, self.errors)

    def places(self, places: Tensor) -> Rows:
        """Return single places of the flattened rows, each as a row of its own."""

        def at(parts: list[Tensor] | None) -> list[Tensor] | None:
            if parts is None:
                return None
            row, column = places // shape[1], places % shape[1]
            return [part.expand(shape)[row, column][:, None] for part in parts]

        shape = self.values[0].shape
        values = [values.flatten()[places][:, None] for values in self.values]
        return Rows(values, at(self.units), at(self.errors))

    def largest(self, count: int) -> Tensor:
        """Return at most `count` places of the flattened rows, where any input is largest."""
        sizes = torch.stack(self.values).abs().amax(dim=0).flatten()
        return sizes.topk(min(len(sizes), count)).indices

    def magnitudes(self) -> list[Tensor]:
        """Return what the values are compared by, T new matrices."""
        if self.units is None:
            return [values.abs() for values in self.values]
        inverse = map(inverse_of, self.units)
        return [(v * n.to(v.dtype)).abs_() for v, n in zip(self.values, inverse, strict=True)]


def inverse_of(units: Tensor) -> Tensor:
    """Return 1 / unit, and 0 for the unit of a row of zeros."""
    return torch.where(units > 0, 1 / units, 0)


class Entries(ABC):
    """The entries of T inputs, each a matrix of `rows` × `columns`.

    Attributes:
        count: T.
        shape: of one input's entries.
        cheap: whether to make them twice costs less than to remember much of them.
        errors: how far each input's values may be from exact ones, T rows [1, columns], where the
            difference may decide something and `exact` can tell; else None.
        work: multiplications for an exact value.
    """

    cheap: bool
    errors: list[Tensor] | None = None
    work: int = 1

    def __init__(self, count: int, rows: int, columns: int):
        self.count = count
        self.shape = (rows, columns)

    @property
    def numel(self) -> int:
        """The number of entries of one input."""
        return self.shape[0] * self.shape[1]

    @abstractmethod
    def take(self, rows: slice) -> Rows:
        """Make some rows of all inputs."""

    @abstractmethod
    def only(self, t: int) -> Entries:
        """Return the entries of one input."""

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        """Return single values of all inputs in float64, T columns [n, 1], where `errors` are."""
        raise NotImplementedError

    def exact_units(self, t: int, rows: Tensor) -> Tensor:
        """Return the units of n different rows of input t in float64, [n], where there are any."""
        raise NotImplementedError


class HeldEntries(Entries):
    """Matrices that are held anyway."""

    cheap = True

    def __init__(self, values: Sequence[Tensor]):
        rows, columns = values[0].shape
        super().__init__(len(values), rows, columns)
        self.values = list(values)

    def take(self, rows: slice) -> Rows:
        return Rows(self.values, errors=self.errors)[rows]

    def only(self, t: int) -> HeldEntries:
        return HeldEntries([self.values[t]])


class DeltaEntries(Entries):
    """The deltas themselves."""

    cheap = True

    def __init__(self, deltas: Sequence[Delta]):
        super().__init__(len(deltas), *deltas[0].shape)
        self.deltas = deltas

    def take(self, rows: slice) -> Rows:
        return Rows([delta.rows(rows).to_dense() for delta in self.deltas])

    def only(self, t: int) -> DeltaEntries:
        return DeltaEntries([self.deltas[t]])


class Coordinates(Entries):
    """The inputs' coordinates in their joint basis, diag(s)·V_tᵀ (KnOTS, §4)."""

    cheap = False

    def __init__(self, joint: JointDecomposition, deltas: Sequence[Delta]):
        super().__init__(len(deltas), joint.basis.shape[1], deltas[0].shape[1])
        self.work = deltas[0].shape[0]
        self.joint = joint
        self.deltas = deltas
        if joint.basis.dtype != torch.float64 and joint.basis.device.type in ("cpu", "cuda"):
            # A projection's error is that of a sum of `out` products: measured, 6 eps of the root
            # mean square of the column.
            error = 30 * torch.finfo(joint.basis.dtype).eps / deltas[0].shape[0] ** 0.5
            self.errors = [error * delta.rounding_norms.to(joint.basis)[None] for delta in deltas]

    def take(self, rows: slice) -> Rows:
        values = [self.joint.coordinates(delta, rows) for delta in self.deltas]
        return Rows(values, errors=self.errors)

    def only(self, t: int) -> Coordinates:
        return type(self)(self.joint, [self.deltas[t]])

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        values = []
        for delta in self.deltas:
            own = delta.projected_at(self.joint.finest_basis, rows, columns)
            values.append(without_noise(own[None], delta.column_norms[columns.cpu()]).T)
        return values


class RenormalizedCoordinates(Coordinates):
    """Coordinates that are compared as if their rows had unit length (DRM, «Renormalize»).

    With n_{t,i} the norm of row i of V_tᵀ, the row's length is the renormalized singular value
    s̃_{t,i} = s_i·n_{t,i}, and dividing by it gives the row of Ṽ_t. The squares of n_{t,i} over all
    inputs add up to 1, the shared norm budget. A row of zeros (an input that has no part in that
    direction) stays one.

    The values stay diag(s̃_t)·Ṽ_t: what is pruned by the magnitudes of Ṽ_t needs no scaling back.
    """

    def take(self, rows: slice) -> Rows:
        taken = super().take(rows)
        return replace(taken, units=[row_lengths(v)[:, None] for v in taken.values])

    def exact_units(self, t: int, rows: Tensor) -> Tensor:
        return self.deltas[t].projected_lengths(self.joint.finest_basis, rows)


class SparsifiedEntries(HeldEntries):
    """What is left of other entries, each input's scaled by a factor.

    Args:
        entries: of T inputs.
        sparsified: what is left of each, a matrix with zeros elsewhere, and its factor.
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
    """Other entries, of which some are dropped as they are made.

    Args:
        entries: of T inputs.
        drop: from t and some of input t's values to the same with zeros among them.
    """

    def __init__(self, entries: Entries, drop: Callable[[int, Tensor], Tensor]):
        super().__init__(entries.count, *entries.shape)
        self.entries = entries
        self.drop = drop
        self.cheap = entries.cheap
        self.work = entries.work
        self.errors = entries.errors

    def take(self, rows: slice) -> Rows:
        taken = self.entries.take(rows)
        return replace(taken, values=[self.drop(t, v) for t, v in enumerate(taken.values)])

    def only(self, t: int) -> DroppedEntries:
        return DroppedEntries(self.entries.only(t), lambda _, values: self.drop(t, values))

    def exact(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        return self.entries.exact(rows, columns)
