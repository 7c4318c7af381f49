"""Summarize an inspection: values by input, by pair of inputs, and by layer and kind of weight."""

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
from mergekit_spectral.reporting.names import short_names, shorten

MANY_PAIRS = 6
"""Maximum number of pairs for which each pair has its own column in values by layer."""

MERGED = 0.9
"""Share of an input's squared norm that weights of low rank must have in merged adapters."""

Array = npt.NDArray[np.float64]
PerInput = Callable[[WeightReport], Sequence[float | None]]
"""A function that returns one of a weight's values for each input, None where it has none."""


def mean_over_weights(inspection: Inspection, value: PerInput) -> Array:
    """Return the mean of each input's value over the weights that the input changes, [T].

    As in the other functions of this module, the mean is NaN if there are no values.
    """
    return mean([value(weight) for weight in inspection.weights])


def mean(values: object, axis: int | None = 0) -> Array:
    """Return the mean over an axis, ignoring values that are None or NaN."""
    present = np.ma.masked_invalid(np.asarray(values, dtype=float))
    means: Array = np.ma.filled(present.mean(axis=axis), np.nan)
    return means


def pruned_share(weight: WeightReport) -> list[float | None]:
    """Return the share of each input's entries that DRM prunes."""
    return [None if rows is None else rows.mean for rows in weight.pruned]


def pruned_share_unrenormalized(weight: WeightReport) -> list[float | None]:
    """Return the share of each input's entries that DRM would prune without renormalization."""
    return [None if rows is None else rows.mean for rows in weight.pruned_unrenormalized]


def mean_pairs(inspection: Inspection, value: Callable[[WeightReport], object]) -> Array:
    """Return the mean of each pair's value over the weights that both inputs change, [T, T]."""
    return mean([value(weight) for weight in inspection.weights])


@dataclass(frozen=True)
class LayerPairs:
    """A value of pairs of inputs, by layer.

    Attributes:
        layers: numbers of the layers, one for each row.
        columns: names of the pairs; or, if there are many pairs, names of the inputs, where the
            values are means over each input's pairs.
        values: the values, [layers, columns].
    """

    layers: tuple[int, ...]
    columns: tuple[str, ...]
    values: Array


def pairs_by_layer(
    inspection: Inspection, value: Callable[[WeightReport], object]
) -> LayerPairs | None:
    """Return the means of a pair's value over the weights of each layer.

    If there are more than `MANY_PAIRS` pairs, the values are means over each input's pairs.

    Returns:
        The values; None if no weight belongs to a layer.
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


def distinct_pairs(pairs: Array) -> Array:
    """Return the values of the pairs of different inputs, each pair once, without NaN.

    Args:
        pairs: symmetric matrix of values, [T, T].
    """
    values: Array = pairs[np.triu_indices(len(pairs), k=1)]
    return values[~np.isnan(values)]


def total_norms(inspection: Inspection) -> Array:
    """Return the norm of each input's whole update, [T]."""
    norms = [weight.norms for weight in inspection.weights]
    norms += [other.norms for other in inspection.others]
    total: Array = np.sqrt(np.nansum(np.square(np.asarray(norms, dtype=float)), axis=0))
    return total


def total_cosines(inspection: Inspection) -> Array:
    """Return the cosine of each pair's whole updates of matrices, [T, T].

    It is NaN for an input that changes no matrix.
    """
    count = len(inspection.inputs)
    products = np.zeros((count, count))
    for weight in inspection.weights:
        norms = np.nan_to_num(np.asarray(weight.norms, dtype=float))
        own = np.nan_to_num(np.asarray(weight.cosines, dtype=float))
        np.fill_diagonal(own, 1)
        products += own * np.outer(norms, norms)
    totals = np.sqrt(products.diagonal())
    totals[totals == 0] = np.nan
    cosines: Array = products / np.outer(totals, totals)
    return cosines


def relative_sizes(inspection: Inspection) -> Array | None:
    """Return the norm of each input's update divided by that of the base's same matrices, [T].

    Returns:
        The ratios; None if the base was not read.
    """
    updates, bases = [], []
    for weight in inspection.weights:
        pairs = zip(weight.norms, weight.relative_norms or (), strict=False)
        base = next((norm / ratio for norm, ratio in pairs if norm and ratio), None)
        if base is not None:
            updates.append(weight.norms)
            bases.append([base if norm is not None else np.nan for norm in weight.norms])
    if not bases:
        return None
    squares = [np.nansum(np.square(np.asarray(x, dtype=float)), axis=0) for x in (updates, bases)]
    sizes: Array = np.sqrt(squares[0] / np.maximum(squares[1], 1e-300))
    return sizes


def adapter_ranks(inspection: Inspection) -> list[int | None]:
    """Return the rank of each input that is a LoRA adapter merged into a checkpoint, else None.

    Such an input's updates have few directions and rounding errors, in weights with nearly its
    whole squared norm. The rank is the largest one of these weights.
    """
    found: list[int | None] = []
    for number in range(len(inspection.inputs)):
        low = total = 0.0
        ranks = [0]
        for weight in inspection.weights:
            norm, rounding = weight.norms[number], weight.roundings[number]
            if norm and rounding is not None:
                total += norm**2
                if rounding.is_low_rank(norm, weight.shape):
                    low += norm**2
                    ranks.append(rounding.rank)
        found.append(max(ranks) if low > 0 and low >= MERGED * total else None)
    return found


def full_fine_tunes(inspection: Inspection) -> list[bool]:
    """Return for each input whether it has updates of matrices that are not of low rank.

    Adapters are not, whether they are read in factors or were merged into a checkpoint.
    """
    merged = adapter_ranks(inspection)
    return [
        not inspection.lora
        and merged[number] is None
        and any(weight.ranks[number] == min(weight.shape) for weight in inspection.weights)
        for number in range(len(inspection.inputs))
    ]


def rounding_shares(inspection: Inspection) -> Array:
    """Return the share of rounding errors in the squared norm of each input's update, [T].

    It is 0 for adapters that are read in factors.
    """
    count = len(inspection.inputs)
    noise, total = np.zeros(count), np.zeros(count)
    for weight in inspection.weights:
        total += np.nan_to_num(np.square(np.asarray(weight.norms, dtype=float)))
        noise += [0.0 if each is None else each.noise**2 for each in weight.roundings]
    shares: Array = np.minimum(1, noise / np.maximum(total, 1e-300))
    return shares


def mean_rank(inspection: Inspection) -> float:
    """Return the mean number of an update's singular values, over all weights and inputs."""
    return float(mean([weight.ranks for weight in inspection.weights], None))


def inputs_changing(inspection: Inspection) -> list[int]:
    """Return the number of inputs that change each matrix."""
    return [sum(rank is not None for rank in weight.ranks) for weight in inspection.weights]


def weights_changed(inspection: Inspection) -> list[int]:
    """Return the number of matrices that each input changes."""
    changed = [[rank is not None for rank in weight.ranks] for weight in inspection.weights]
    return [sum(own) for own in zip(*changed, strict=True)]


@dataclass(frozen=True)
class Grid:
    """A value of each input, by layer and kind of weight.

    Attributes:
        layers: numbers of the layers, one for each row.
        kinds: names of the kinds of weight, one for each column, such as ``q_proj``.
        values: the values, [T, layers, kinds]; NaN where there is no such weight.
    """

    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    values: Array


def lay_out_grid(inspection: Inspection, value: PerInput) -> Grid | None:
    """Arrange the inputs' values by layer and kind; return None if no weight is in a layer."""
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
    return Grid(tuple(layers), tuple(shorten(kinds, ".")), values)


@dataclass(frozen=True)
class Conflict:
    """Two inputs' updates of one weight.

    Attributes:
        weight: name of the weight.
        inputs: indices of the two inputs.
        cosine: cosine of the two updates.
    """

    weight: str
    inputs: tuple[int, int]
    cosine: float


def worst_conflicts(inspection: Inspection, count: int) -> list[Conflict]:
    """Return up to `count` pairs of updates with the most negative cosines, the lowest first."""
    found = [
        Conflict(weight.name, (i, j), cosine)
        for weight in inspection.weights
        for i in range(len(inspection.inputs))
        for j in range(i)
        if (cosine := weight.cosines[i][j]) is not None and cosine < 0
    ]
    return sorted(found, key=lambda conflict: conflict.cosine)[:count]


def unchanged_layers(inspection: Inspection) -> list[int]:
    """Return the layers that were inspected completely and that no input changes."""
    others = {layer_of(weight.name) for weight in inspection.weights}
    others |= {layer_of(other.name) for other in inspection.others}
    others |= {layer_of(tensor.name) for tensor in inspection.left_out}
    layers = set(map(layer_of, inspection.unchanged)) - others
    return sorted(layer for layer in layers if layer is not None)
