"""Measure the inputs' updates of one weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mergekit_spectral.inspecting.measures import (
    Subspaces,
    effective_rank,
    inner_products,
    overlap,
    stable_rank,
)
from mergekit_spectral.inspecting.pruned_rows import PrunedRows, pruned_shares
from mergekit_spectral.inspecting.rounding import Rounding, compare_with_rounding
from mergekit_spectral.methods import parameters, shared_side
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    RenormalizedCoordinates,
    UnnormalizedCoordinates,
    above_tolerance,
    exact_matmul,
    joint_decomposition,
    kept_rank,
)

V = TypeVar("V")

ETAS = (20, 40, 60, 80)
SUBSPACE = 16
"""Maximum number of directions in the subspaces whose overlap is measured."""
RANK_TOLERANCE: float = parameters.RANK_TOLERANCE.default
DENSITY: float = parameters.DENSITY.default
"""Default density of DRM, used for the reported pruned shares."""
SAMPLED_ROWS = 256
SAMPLED_COLUMNS = 2048
SHOWN_VALUES = 48

Values = tuple[float | None, ...]
"""A number for each input, [T]; None for inputs that do not change the weight."""
Pairs = tuple[Values, ...]
"""A number for each pair of inputs, [T, T]; None unless both inputs change the weight."""


@dataclass(frozen=True)
class WeightReport:
    """Measurements of the inputs' updates of one matrix.

    Tuples have one value for each input, in the recipe's order. The value is None for an input
    that does not change this matrix, or is not merged into it.

    Attributes:
        name: name of the tensor.
        shape: shape of the matrix, [out, in].
        norms: Frobenius norms of the updates; 0 for an input that is merged but changes nothing.
        relative_norms: the norms divided by the base's norm; None if the base was not read.
        spectra: singular values divided by the largest one, a sample of at most `SHOWN_VALUES`
            values at evenly spaced positions.
        ranks: numbers of singular values.
        overlap_dimensions: number of dimensions of the largest subspace whose overlap is measured.
        effective_ranks: effective ranks, see `effective_rank`.
        stable_ranks: stable ranks, see `stable_rank`.
        kept_ranks: ranks that STAR keeps, by η.
        roundings: comparisons with the rounding of the weights, see `compare_with_rounding`; also
            None for adapters that are read in factors.
        cosines: cosines of the updates as vectors.
        overlap_out: overlaps of the leading subspaces of the output space, of at most `SUBSPACE`
            dimensions.
        overlap_in: overlaps of the leading subspaces of the input space.
        agreement: share of the positions where both updates are not zero in which they have the
            same sign, measured on at most `SAMPLED_ROWS` rows.
        joint_agreement: the same for DRM's coordinates in the joint space. This attribute and
            those that follow are measured on at most `SAMPLED_COLUMNS` columns.
        directions: number of directions of the joint space.
        norm_shares: each input's share of the squared norm of a joint direction, the mean over the
            leading directions: the first half, at most `SUBSPACE`.
        pruned: pruned shares of each input's rows of coordinates in DRM, at `DENSITY`.
        pruned_unrenormalized: the pruned shares in DRM without renormalization.
    """

    name: str
    shape: tuple[int, int]
    norms: Values
    relative_norms: Values | None
    spectra: tuple[tuple[float, ...] | None, ...]
    ranks: tuple[int | None, ...]
    overlap_dimensions: int
    effective_ranks: Values
    stable_ranks: Values
    kept_ranks: dict[int, tuple[int | None, ...]]
    roundings: tuple[Rounding | None, ...]
    cosines: Pairs
    overlap_out: Pairs
    overlap_in: Pairs
    agreement: Pairs
    joint_agreement: Pairs
    directions: int
    norm_shares: Values
    pruned: tuple[PrunedRows | None, ...]
    pruned_unrenormalized: tuple[PrunedRows | None, ...]


@exact_matmul()
def inspect_weight(
    name: str,
    deltas: Sequence[Delta | None],
    base_norm: float | None,
    direction: str = "auto",
) -> WeightReport | None:
    """Measure the inputs' updates of one matrix.

    Args:
        name: name of the tensor.
        deltas: updates of T inputs, [out, in]; None for an input that is not merged into it.
        base_norm: Frobenius norm of the base's matrix; None if it is not known.
        direction: the recipe's `direction`, for the joint space.

    Returns:
        The measurements; None if no input changes the matrix.
    """
    merged = [delta for delta in deltas if delta is not None]
    positions = _InputPositions(deltas)
    if not positions.changes:
        return None
    shape = merged[0].shape
    products = inner_products(positions.changes)
    norms = products.diagonal().clamp(min=0).sqrt()
    own = [
        joint_decomposition([delta], _leading, few=True, exact=False) for delta in positions.changes
    ]
    spaces = [Subspaces.of(part, delta) for part, delta in zip(own, positions.changes, strict=True)]
    spectra = [part.spectrum for part in own]
    # DRM compares the entries of all merged inputs, including inputs whose update is zero.
    horizontal = shared_side(direction, shape) == "horizontal"
    sharing = merged if horizontal else [delta.T for delta in merged]
    joint = joint_decomposition(sharing, above_tolerance(RANK_TOLERANCE))
    some = [delta.columns(_evenly_spaced(delta.shape[1], SAMPLED_COLUMNS)) for delta in sharing]
    coordinates = RenormalizedCoordinates(joint, some)
    changed = [delta.norm > 0 for delta in merged]
    return WeightReport(
        name=name,
        shape=shape,
        norms=positions.norms(norms),
        relative_norms=None if not base_norm else positions.norms(norms / base_norm),
        spectra=positions.each([_shown(spectrum) for spectrum in spectra]),
        ranks=positions.each([len(spectrum) for spectrum in spectra]),
        overlap_dimensions=max(part.basis.shape[1] for part in own),
        effective_ranks=positions.each([round(effective_rank(s), 2) for s in spectra]),
        stable_ranks=positions.each([round(stable_rank(s), 2) for s in spectra]),
        kept_ranks={eta: positions.each([kept_rank(s, eta) for s in spectra]) for eta in ETAS},
        roundings=positions.each(list(map(compare_with_rounding, positions.changes, spectra))),
        cosines=positions.pairs(products / torch.outer(norms, norms).clamp(min=1e-300)),
        overlap_out=positions.pairs(_overlaps([space.left for space in spaces])),
        overlap_in=positions.pairs(_overlaps([space.right for space in spaces])),
        agreement=positions.pairs(_agreement(_sample_rows(positions.changes))),
        joint_agreement=positions.pairs(_agreement(_all_entries(coordinates)[changed])),
        directions=joint.basis.shape[1],
        norm_shares=positions.each(_rounded(_norm_shares(coordinates)[changed])),
        pruned=positions.each(_pruned(coordinates, changed)),
        pruned_unrenormalized=positions.each(
            _pruned(UnnormalizedCoordinates(joint, some), changed),
        ),
    )


class _InputPositions:
    """Assign values of the inputs that change a matrix to positions in the list of all inputs.

    Args:
        deltas: updates of all inputs; None for an input that is not merged into the matrix.

    Attributes:
        changes: the updates that are not zero.
    """

    def __init__(self, deltas: Sequence[Delta | None]):
        self._merged = [delta is not None for delta in deltas]
        self._changed = [delta is not None and delta.norm > 0 for delta in deltas]
        self.changes = [d for d, own in zip(deltas, self._changed, strict=True) if d and own]

    def each(self, values: Sequence[V]) -> tuple[V | None, ...]:
        """Return a value for each input; None for inputs that do not change the matrix."""
        remaining = iter(values)
        return tuple(next(remaining) if changed else None for changed in self._changed)

    def norms(self, values: Tensor) -> Values:
        """Return a norm for each input; 0 for inputs that are merged but change nothing."""
        pairs = zip(self.each(_rounded(values)), self._merged, strict=True)
        return tuple(0.0 if value is None and merged else value for value, merged in pairs)

    def pairs(self, values: Tensor) -> Pairs:
        """Return a value for each pair of inputs; None unless both change the matrix."""
        nothing = (None,) * len(self._changed)
        rows = self.each([self.each(_rounded(row)) for row in values])
        return tuple(nothing if row is None else row for row in rows)


def _leading(spectrum: Tensor) -> int:
    return min(SUBSPACE, int((spectrum > RANK_TOLERANCE * spectrum[0]).sum()))


def _overlaps(bases: Sequence[Tensor]) -> Tensor:
    return torch.tensor([[overlap(one, other) for other in bases] for one in bases])


def _evenly_spaced(length: int, count: int) -> slice:
    """Return a slice of at most `count` evenly spaced positions among `length`."""
    return slice(0, length, -(-length // count))


def _sample_rows(deltas: Sequence[Delta]) -> Tensor:
    """Return the entries of at most `SAMPLED_ROWS` rows of each delta, [T, entries]."""
    rows = _evenly_spaced(deltas[0].shape[0], SAMPLED_ROWS)
    return torch.stack([delta.rows(rows).to_dense().flatten() for delta in deltas])


def _all_entries(entries: Entries) -> Tensor:
    return torch.stack([values.flatten() for values in entries.take(slice(None)).values])


def _agreement(values: Tensor) -> Tensor:
    """Return the shares of positions with the same sign, of those where both are not zero.

    Args:
        values: entries of each input, [T, entries].

    Returns:
        The shares for all pairs, [T, T]; 0.5 where no position is not zero in both.
    """
    signs = values.sign()
    present = signs.abs()
    both = (present @ present.T).double()
    return torch.where(both > 0, ((signs @ signs.T).double() / both.clamp(min=1) + 1) / 2, 0.5)


def _pruned(coordinates: Entries, changed: list[bool]) -> list[PrunedRows]:
    return list(map(PrunedRows.of, pruned_shares(coordinates, DENSITY)[changed]))


def _norm_shares(coordinates: RenormalizedCoordinates) -> Tensor:
    # Only leading directions: over all directions, inputs of the same rank have equal mean shares.
    leading = max(1, min(SUBSPACE, coordinates.shape[0] // 2))
    units = coordinates.take(slice(0, leading)).units
    assert units is not None
    squares = torch.cat(units, dim=1).double() ** 2
    return (squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-300)).mean(dim=0)


def _shown(spectrum: Tensor) -> tuple[float, ...]:
    """Return at most `SHOWN_VALUES` evenly spaced singular values, divided by the largest one."""
    count = min(len(spectrum), SHOWN_VALUES)
    positions = torch.linspace(0, len(spectrum) - 1, count).round().long()
    return _rounded(spectrum[positions] / spectrum[0])


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values.tolist())
