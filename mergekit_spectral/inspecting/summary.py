"""An inspection in numbers that a person can take in: by input, by pair, by layer and kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.weights import WeightReport
from mergekit_spectral.tensor_names import kind_of, layer_of

MANY_PAIRS = 6
"""Up to so many, each pair has a column of its own."""

Array = npt.NDArray[np.float64]


def short_names(inputs: Sequence[str]) -> list[str]:
    """Return the last parts of models' names, as many of them as tell all apart."""
    return endings([name.rpartition("+")[2] for name in inputs], "/")


def endings(names: Sequence[str], separator: str) -> list[str]:
    """Return the last parts of names, as many of them as tell all apart."""
    parts = [name.strip(separator).split(separator) for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        short = [separator.join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            return short
    return list(names)


def mean_over_weights(
    inspection: Inspection, value: Callable[[WeightReport], Sequence[float]]
) -> Array:
    """Return the mean over all weights of a value of each input, [T]."""
    means: Array = np.mean([value(weight) for weight in inspection.weights], axis=0)
    return means


def pruned(weight: WeightReport) -> list[float]:
    """Return the share of each input's entries that DRM prunes."""
    return [rows.mean for rows in weight.pruned]


def pruned_without(weight: WeightReport) -> list[float]:
    """Return the share that it would prune without renormalization."""
    return [rows.mean for rows in weight.pruned_unrenormalized]


def mean_pairs(inspection: Inspection, value: Callable[[WeightReport], object]) -> Array:
    """Return the mean over all weights of a value of each pair of inputs, [T, T]."""
    means: Array = np.mean([np.asarray(value(weight)) for weight in inspection.weights], axis=0)
    return means


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
            found[layer].append(np.asarray(value(weight)))
    if not found:
        return None
    layers = sorted(found)
    means = np.stack([np.mean(found[layer], axis=0) for layer in layers])
    names = short_names(inspection.inputs)
    pairs = list(combinations(range(len(names)), 2))
    if len(pairs) <= MANY_PAIRS:
        columns = [f"{names[i]}, {names[j]}" for i, j in pairs]
        values = np.stack([means[:, i, j] for i, j in pairs], axis=1)
        return LayerPairs(tuple(layers), tuple(columns), values)
    others = ~np.eye(len(names), dtype=bool)
    values = np.stack([means[:, t, others[t]].mean(axis=1) for t in range(len(names))], axis=1)
    return LayerPairs(tuple(layers), tuple(names), values)


def between(pairs: Array) -> Array:
    """Return the values of the pairs of different inputs, each pair once."""
    values: Array = pairs[np.triu_indices(len(pairs), k=1)]
    return values


def total_norms(inspection: Inspection) -> Array:
    """Return the norm of each input's whole update, [T]."""
    squares = [np.square(weight.norms) for weight in inspection.weights]
    squares += [np.square(other.norms) for other in inspection.others]
    total: Array = np.sqrt(np.sum(squares, axis=0))
    return total


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


def grid(inspection: Inspection, value: Callable[[WeightReport], Sequence[float]]) -> Grid | None:
    """Lay out a value of all weights in layers, or return None if none is of a layer."""
    cells: dict[tuple[int, str], list[Sequence[float]]] = defaultdict(list)
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
        values[:, layers.index(layer), kinds.index(kind)] = np.mean(found, axis=0)
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
        Conflict(weight.name, (i, j), weight.cosines[i][j])
        for weight in inspection.weights
        for i in range(len(inspection.inputs))
        for j in range(i)
        if weight.cosines[i][j] < 0
    ]
    return sorted(found, key=lambda conflict: conflict.cosine)[:count]


def unchanged_layers(inspection: Inspection) -> list[int]:
    """Return the layers that no input changes."""
    changed = [weight.name for weight in inspection.weights]
    changed += [other.name for other in inspection.others]
    layers = set(map(layer_of, inspection.unchanged)) - set(map(layer_of, changed))
    return sorted(layer for layer in layers if layer is not None)
