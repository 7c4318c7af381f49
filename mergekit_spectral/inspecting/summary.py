"""An inspection in numbers that a person can take in: by input, by pair, by layer and kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from mergekit_spectral.adapters.tensor_names import kind_of, layer_of
from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.weights import WeightReport

MANY_PAIRS = 6
"""Up to so many, each pair has a column of its own."""

Array = npt.NDArray[np.float64]
PerInput = Callable[[WeightReport], Sequence[float | None]]
"""A value of a weight for each input, None for one that does not change it."""


def short_names(inputs: Sequence[str]) -> list[str]:
    """Return the last parts of models' names, as many of them as tell all apart."""
    own = [name.rpartition("+")[2] for name in inputs]
    # One adapter may be on several bases.
    return endings(own if len(set(own)) == len(own) else list(inputs), "/")


def endings(names: Sequence[str], separator: str) -> list[str]:
    """Return the last parts of names, as many of them as tell all apart."""
    parts = [name.strip(separator).split(separator) for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = [separator.join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)


def mean_over_weights(inspection: Inspection, value: PerInput) -> Array:
    """Return the mean of a value of each input over the weights that it changes, [T].

    It is NaN for an input that changes none, here as in all that follows.
    """
    return mean([value(weight) for weight in inspection.weights])


def mean(values: object, axis: int | None = 0) -> Array:
    """Return the mean over an axis, of the values that are there."""
    there = np.ma.masked_invalid(np.asarray(values, dtype=float))
    means: Array = np.ma.filled(there.mean(axis=axis), np.nan)
    return means


def pruned(weight: WeightReport) -> list[float | None]:
    """Return the share of each input's entries that DRM prunes."""
    return [None if rows is None else rows.mean for rows in weight.pruned]


def pruned_without(weight: WeightReport) -> list[float | None]:
    """Return the share that it would prune without renormalization."""
    return [None if rows is None else rows.mean for rows in weight.pruned_unrenormalized]


def mean_pairs(inspection: Inspection, value: Callable[[WeightReport], object]) -> Array:
    """Return the mean of a value of each pair over the weights that both change, [T, T]."""
    return mean([value(weight) for weight in inspection.weights])


@dataclass(frozen=True)
class LayerPairs:
    """A value by layer, of pairs of inputs or of inputs.

    Attributes:
        layers: the rows' numbers.
        columns: names of pairs, or of inputs, whose values are means over their pairs.
        values: [layers, columns].
    """

    layers: tuple[int, ...]
    columns: tuple[str, ...]
    values: Array


def pairs_by_layer(
    inspection: Inspection, value: Callable[[WeightReport], object]
) -> LayerPairs | None:
    """Return a value of pairs by layer, the mean over its weights, or None without layers.

    Of more than `MANY_PAIRS` the means of each input's pairs are returned.
    """
    found: dict[int, list[Array]] = defaultdict(list)
    for weight in inspection.weights:
        layer = layer_of(weight.name)
        if layer is not None:
            found[layer].append(np.asarray(value(weight), dtype=float))
    if not found:
        return None
    layers = sorted(found)
    means = np.stack([mean(found[layer]) for layer in layers])
    names = short_names(inspection.inputs)
    pairs = list(combinations(range(len(names)), 2))
    if len(pairs) <= MANY_PAIRS:
        columns = [f"{names[i]}, {names[j]}" for i, j in pairs]
        values = np.stack([means[:, i, j] for i, j in pairs], axis=1)
        return LayerPairs(tuple(layers), tuple(columns), values)
    others = ~np.eye(len(names), dtype=bool)
    values = np.stack([mean(means[:, t, others[t]], 1) for t in range(len(names))], axis=1)
    return LayerPairs(tuple(layers), tuple(names), values)


def between(pairs: Array) -> Array:
    """Return the values of the pairs of different inputs that there are, each pair once."""
    values: Array = pairs[np.triu_indices(len(pairs), k=1)]
    return values[~np.isnan(values)]


def total_norms(inspection: Inspection) -> Array:
    """Return the norm of each input's whole update, [T]."""
    norms = [weight.norms for weight in inspection.weights]
    norms += [other.norms for other in inspection.others]
    total: Array = np.sqrt(np.nansum(np.square(np.asarray(norms, dtype=float)), axis=0))
    return total


def mean_rank(inspection: Inspection) -> float:
    """Return how many singular values updates have, the mean over all."""
    return float(mean([weight.ranks for weight in inspection.weights], None))


def inputs_changing(inspection: Inspection) -> list[int]:
    """Return how many inputs change each matrix."""
    return [sum(rank is not None for rank in weight.ranks) for weight in inspection.weights]


def weights_changed(inspection: Inspection) -> list[int]:
    """Return how many matrices each input changes."""
    changed = [[rank is not None for rank in weight.ranks] for weight in inspection.weights]
    return [sum(own) for own in zip(*changed, strict=True)]


@dataclass(frozen=True)
class Grid:
    """A value by layer and kind of weight, of each input.

    Attributes:
        layers: the rows' numbers.
        kinds: the columns' names, such as ``q_proj``.
        values: [T, layers, kinds]; NaN where there is no such weight.
    """

    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    values: Array


def grid(inspection: Inspection, value: PerInput) -> Grid | None:
    """Lay out a value of all weights in layers, or return None if none is of a layer."""
    cells: dict[tuple[int, str], list[Sequence[float | None]]] = defaultdict(list)
    for weight in inspection.weights:
        layer = layer_of(weight.name)
        if layer is not None:
            cells[layer, kind_of(weight.name).partition("[")[0]].append(value(weight))
    if not cells:
        return None
    layers = sorted({layer for layer, _ in cells})
    kinds = list(dict.fromkeys(kind for _, kind in cells))
    values = np.full((len(inspection.inputs), len(layers), len(kinds)), np.nan)
    for (layer, kind), found in cells.items():
        values[:, layers.index(layer), kinds.index(kind)] = mean(found)
    return Grid(tuple(layers), tuple(endings(kinds, ".")), values)


@dataclass(frozen=True)
class Conflict:
    """Two inputs' updates of one weight.

    Attributes:
        weight: its name.
        inputs: their numbers.
        cosine: of the two updates.
    """

    weight: str
    inputs: tuple[int, int]
    cosine: float


def worst_conflicts(inspection: Inspection, count: int) -> list[Conflict]:
    """Return where two updates pull apart most, the worst first; those below zero alone."""
    found = [
        Conflict(weight.name, (i, j), cosine)
        for weight in inspection.weights
        for i in range(len(inspection.inputs))
        for j in range(i)
        if (cosine := weight.cosines[i][j]) is not None and cosine < 0
    ]
    return sorted(found, key=lambda conflict: conflict.cosine)[:count]


def unchanged_layers(inspection: Inspection) -> list[int]:
    """Return the layers that were looked at whole, and that no input changes."""
    others = {layer_of(weight.name) for weight in inspection.weights}
    others |= {layer_of(other.name) for other in inspection.others}
    others |= {layer_of(tensor.name) for tensor in inspection.left_out}
    layers = set(map(layer_of, inspection.unchanged)) - others
    return sorted(layer for layer in layers if layer is not None)
