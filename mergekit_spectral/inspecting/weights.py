"""What can be said of one weight and its inputs' updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mergekit_spectral.inspecting.pruned_rows import PrunedRows, pruned_shares
from mergekit_spectral.inspecting.spectra import effective_rank, stable_rank
from mergekit_spectral.inspecting.subspaces import Subspaces, inner_products, overlap
from mergekit_spectral.methods import parameters, shared_side
from mergekit_spectral.spectral import (
    Delta,
    Entries,
    RenormalizedCoordinates,
    UnnormalizedCoordinates,
    above_tolerance,
    joint_decomposition,
    kept_rank,
)

V = TypeVar("V")

ETAS = (20, 40, 60, 80)
SUBSPACE = 16
"""Directions that overlaps are measured in, at most."""
RANK_TOLERANCE: float = parameters.RANK_TOLERANCE.default
DENSITY: float = parameters.DENSITY.default
"""DRM's own, at which the pruned shares are reported."""
SAMPLED_ROWS = 256
SAMPLED_COLUMNS = 2048
SHOWN_VALUES = 48

Values = tuple[float | None, ...]
"""A number for each input that changes the weight, None for the others."""
Pairs = tuple[Values, ...]
"""A number for each pair of inputs that both do, [T, T]."""


@dataclass(frozen=True)
class WeightReport:
    """One matrix of the model. Lists have a value for each input, in the recipe's order.

    What an input's update is like is None for an input that changes nothing here, or that the
    weight is not merged with.

    Attributes:
        name: of the tensor.
        shape: [out, in].
        norms: Frobenius norms of the updates, 0 for one that changes nothing.
        relative_norms: the same over the base's norm; None where the base was not read.
        spectra: singular values relative to the largest, up to `SHOWN_VALUES` of them, evenly
            over all.
        ranks: how many singular values there are.
        overlap_dimensions: that overlaps are measured in.
        effective_ranks: see `effective_rank`.
        stable_ranks: see `stable_rank`.
        kept_ranks: the rank that STAR keeps, by η.
        cosines: of the updates as vectors.
        overlap_out: of the leading subspaces of the output space, up to `SUBSPACE` dimensions.
        overlap_in: of the input space.
        agreement: share of places where two updates that are not zero have the same sign, in the
            weights, on up to `SAMPLED_ROWS` rows.
        joint_agreement: the same of DRM's coordinates in the joint space, on up to
            `SAMPLED_COLUMNS` columns, as all that follows.
        directions: of the joint space.
        norm_shares: each input's mean share of the norm budget of the leading joint directions,
            half of them and up to `SUBSPACE`.
        pruned: what DRM prunes of each input's rows of coordinates, at `DENSITY`.
        pruned_unrenormalized: what it would prune without renormalization.
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
    cosines: Pairs
    overlap_out: Pairs
    overlap_in: Pairs
    agreement: Pairs
    joint_agreement: Pairs
    directions: int
    norm_shares: Values
    pruned: tuple[PrunedRows | None, ...]
    pruned_unrenormalized: tuple[PrunedRows | None, ...]


def inspect_weight(
    name: str,
    deltas: Sequence[Delta | None],
    base_norm: float | None,
    direction: str = "auto",
) -> WeightReport | None:
    """Look at one weight.

    Args:
        name: of the tensor.
        deltas: of T inputs, [out, in]; None of an input that it is not merged with.
        base_norm: the base's Frobenius norm, or None if it is not known.
        direction: the recipe's, for the joint space.

    Returns:
        None if no input changes it.
    """
    merged = [delta for delta in deltas if delta is not None]
    told = _InPlace(deltas)
    if not told.changes:
        return None
    shape = merged[0].shape
    products = inner_products(told.changes)
    norms = products.diagonal().clamp(min=0).sqrt()
    own = [joint_decomposition([delta], _leading, few=True) for delta in told.changes]
    spaces = [Subspaces.of(part, delta) for part, delta in zip(own, told.changes, strict=True)]
    spectra = [part.spectrum for part in own]
    # DRM prunes all that it merges together, with updates of zero.
    horizontal = shared_side(direction, shape) == "horizontal"
    sharing = merged if horizontal else [delta.T for delta in merged]
    joint = joint_decomposition(sharing, above_tolerance(RANK_TOLERANCE))
    some = [delta.columns(_evenly(delta.shape[1], SAMPLED_COLUMNS)) for delta in sharing]
    coordinates = RenormalizedCoordinates(joint, some)
    changed = [delta.norm > 0 for delta in merged]
    return WeightReport(
        name=name,
        shape=shape,
        norms=told.norms(norms),
        relative_norms=None if not base_norm else told.norms(norms / base_norm),
        spectra=told.each([_shown(spectrum) for spectrum in spectra]),
        ranks=told.each([len(spectrum) for spectrum in spectra]),
        overlap_dimensions=max(part.basis.shape[1] for part in own),
        effective_ranks=told.each([round(effective_rank(s), 2) for s in spectra]),
        stable_ranks=told.each([round(stable_rank(s), 2) for s in spectra]),
        kept_ranks={eta: told.each([kept_rank(s, eta) for s in spectra]) for eta in ETAS},
        cosines=told.pairs(products / torch.outer(norms, norms).clamp(min=1e-300)),
        overlap_out=told.pairs(_overlaps([space.left for space in spaces])),
        overlap_in=told.pairs(_overlaps([space.right for space in spaces])),
        agreement=told.pairs(_agreement(_sampled(told.changes))),
        joint_agreement=told.pairs(_agreement(_all(coordinates)[changed])),
        directions=joint.basis.shape[1],
        norm_shares=told.each(_rounded(_norm_shares(coordinates)[changed])),
        pruned=told.each(_pruned(coordinates, changed)),
        pruned_unrenormalized=told.each(
            _pruned(UnnormalizedCoordinates(joint, some), changed),
        ),
    )


class _InPlace:
    """Puts what is known of the inputs that change a weight in the places of all.

    Args:
        deltas: of all inputs, None of one that the weight is not merged with.

    Attributes:
        changes: those that are not zero.
    """

    def __init__(self, deltas: Sequence[Delta | None]):
        self._merged = [delta is not None for delta in deltas]
        self._changed = [delta is not None and delta.norm > 0 for delta in deltas]
        self.changes = [d for d, own in zip(deltas, self._changed, strict=True) if d and own]

    def each(self, values: Sequence[V]) -> tuple[V | None, ...]:
        """Return a value for each input, None for one that changes nothing."""
        left = iter(values)
        return tuple(next(left) if changed else None for changed in self._changed)

    def norms(self, values: Tensor) -> Values:
        """Return a value for each input, 0 for one that is merged and changes nothing."""
        pairs = zip(self.each(_rounded(values)), self._merged, strict=True)
        return tuple(0.0 if value is None and merged else value for value, merged in pairs)

    def pairs(self, values: Tensor) -> Pairs:
        """Return a value for each pair of inputs, None where one changes nothing."""
        nothing = (None,) * len(self._changed)
        rows = self.each([self.each(_rounded(row)) for row in values])
        return tuple(nothing if row is None else row for row in rows)


def _leading(spectrum: Tensor) -> int:
    return min(SUBSPACE, int((spectrum > RANK_TOLERANCE * spectrum[0]).sum()))


def _overlaps(bases: Sequence[Tensor]) -> Tensor:
    return torch.tensor([[overlap(one, other) for other in bases] for one in bases])


def _evenly(length: int, count: int) -> slice:
    """Return at most `count` places of `length`, evenly spaced."""
    return slice(0, length, -(-length // count))


def _sampled(deltas: Sequence[Delta]) -> Tensor:
    """Return some rows of all inputs: [T, entries]."""
    rows = _evenly(deltas[0].shape[0], SAMPLED_ROWS)
    return torch.stack([delta.rows(rows).to_dense().flatten() for delta in deltas])


def _all(entries: Entries) -> Tensor:
    return torch.stack([values.flatten() for values in entries.take(slice(None)).values])


def _agreement(values: Tensor) -> Tensor:
    """Return the shares of places, of those where both are not zero, with one sign: [T, T]."""
    signs = values.sign()
    present = signs.abs()
    both = (present @ present.T).double()
    return torch.where(both > 0, ((signs @ signs.T).double() / both.clamp(min=1) + 1) / 2, 0.5)


def _pruned(coordinates: Entries, changed: list[bool]) -> list[PrunedRows]:
    return list(map(PrunedRows.of, pruned_shares(coordinates, DENSITY)[changed]))


def _norm_shares(coordinates: RenormalizedCoordinates) -> Tensor:
    # Over all directions the shares of inputs of one rank would be equal, whatever these are.
    leading = max(1, min(SUBSPACE, coordinates.shape[0] // 2))
    units = coordinates.take(slice(0, leading)).units
    assert units is not None
    squares = torch.cat(units, dim=1).double() ** 2
    return (squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-300)).mean(dim=0)


def _shown(spectrum: Tensor) -> tuple[float, ...]:
    """Return the singular values relative to the largest, at most `SHOWN_VALUES` of them."""
    places = torch.linspace(0, len(spectrum) - 1, min(len(spectrum), SHOWN_VALUES)).round().long()
    return _rounded(spectrum[places] / spectrum[0])


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values.tolist())
