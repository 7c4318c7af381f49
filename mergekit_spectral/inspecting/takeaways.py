"""Summarize an inspection in sentences, which are chosen by its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.pruned_rows import PrunedRows
from mergekit_spectral.inspecting.summary import (
    Array,
    distinct_pairs,
    inputs_changing,
    mean,
    mean_over_weights,
    mean_pairs,
    mean_rank,
    pruned_share,
    pruned_share_unrenormalized,
    total_norms,
    unchanged_layers,
    weights_changed,
)
from mergekit_spectral.inspecting.weights import DENSITY
from mergekit_spectral.reporting.names import short_names

OUTLIER = 10
"""An update is called an outlier if its norm is at least this many times the others' median."""
ENTRIES_LOST = 0.02
"""An input is named if DRM would prune at least this much more of its entries, as a share of all,
without renormalization."""
ROWS_LOST = 0.05
"""Completely pruned rows of coordinates are reported if they are at least this share of all."""
UNEVEN = 2
"""Updates are called uneven if the largest norm is at least this many times the smallest."""


def takeaways(inspection: Inspection) -> list[str]:
    """Return sentences, the most important one first."""
    if not inspection.weights:
        among = " that was inspected" if inspection.left_out else ""
        others = len(inspection.others)
        if others:
            return [
                f"No input changes any matrix{among}. The inputs change {others} vectors or "
                "embeddings."
            ]
        end = "." if among else ", so a merge gives the base model."
        return [f"No input changes any tensor{among}{end}"]
    sentences = [_describe_idle(inspection), _describe_sizes(inspection)]
    sentences += [_describe_common_weights(inspection)]
    if max(inputs_changing(inspection)) > 1:
        sentences += [_describe_cosines(inspection), _describe_subspaces(inspection)]
        sentences += [_describe_signs(inspection)]
    sentences += [_describe_ranks(inspection), _describe_pruning(inspection)]
    sentences += [_describe_unchanged(inspection)]
    return [sentence for sentence in sentences if sentence]


def _describe_idle(inspection: Inspection) -> str:
    names = short_names(inspection.inputs)
    idle = [n for n, norm in zip(names, total_norms(inspection), strict=True) if norm == 0]
    if not idle:
        return ""
    among = "none of the inspected tensors" if inspection.left_out else "nothing"
    return f"{join(idle)} change{'s' if len(idle) == 1 else ''} {among}."


def _describe_sizes(inspection: Inspection) -> str:
    every = total_norms(inspection)
    names = [n for n, norm in zip(short_names(inspection.inputs), every, strict=True) if norm]
    norms = every[every > 0]
    if len(norms) < 2:
        return ""
    largest = int(norms.argmax())
    others = float(np.median(np.delete(norms, largest)))
    if norms[largest] >= OUTLIER * others:
        return (
            f"{names[largest]} is an outlier: the norm of its update is "
            f"{norms[largest] / others:.0f} times the median of the others, so it decides nearly "
            "all signs. Give it a smaller weight, or check that it was fine-tuned from this base."
        )
    if norms[largest] >= UNEVEN * norms.min():
        return (
            f"The updates differ in size: the norm for {names[largest]} is "
            f"{norms[largest] / norms.min():.1f} times that for {names[int(norms.argmin())]}, so "
            f"{names[largest]} decides most signs where the two disagree."
        )
    sizes = [weight.relative_norms or () for weight in inspection.weights]
    relative = [size for weight in sizes for size in weight if size]
    share = f", and are about {np.mean(relative):.1%} of the base's" if relative else ""
    return (
        "The updates have about the same size: their norms differ by a factor of at most "
        f"{norms.max() / norms.min():.1f}{share}."
    )


def _describe_common_weights(inspection: Inspection) -> str:
    """Describe how many weights all inputs change, unless they change the same weights."""
    if len(inspection.inputs) == 1:
        return ""
    changing = inputs_changing(inspection)
    busy = sum(count > 0 for count in weights_changed(inspection))
    if min(changing) == busy:
        return ""
    single = sum(count == 1 for count in changing)
    return (
        f"Of the {len(changing)} changed matrices, all inputs change "
        f"{sum(c == busy for c in changing)}, and only one input changes {single}. Values of pairs "
        "are computed from the matrices that both inputs change."
    )


def _describe_cosines(inspection: Inspection) -> str:
    cosines = mean_pairs(inspection, lambda weight: weight.cosines)
    average, least = float(distinct_pairs(cosines).mean()), float(distinct_pairs(cosines).min())
    pair = _lowest_pair(cosines, inspection)
    several = (
        f" The lowest cosine is that of {pair}, {least:.2f}."
        if distinct_pairs(cosines).size > 1
        else ""
    )
    if average > 0.3:
        return (
            f"The updates have similar directions: their mean cosine is {average:.2f}, so they add "
            f"up rather than conflict.{several}"
        )
    if least < -0.1:
        return f"Some updates conflict: {pair} have a mean cosine of {least:.2f}."
    return (
        f"As vectors, the updates are nearly orthogonal: their mean cosine is {average:.2f}, so "
        f"they neither add up nor cancel.{several}"
    )


def _describe_subspaces(inspection: Inspection) -> str:
    out = float(distinct_pairs(mean_pairs(inspection, lambda weight: weight.overlap_out)).mean())
    into = float(distinct_pairs(mean_pairs(inspection, lambda weight: weight.overlap_in)).mean())
    chance_out, chance_in = (
        fmean(w.overlap_dimensions / w.shape[side] for w in inspection.weights) for side in (0, 1)
    )
    hint = ""
    if inspection.lora and _above_chance(into, chance_in) > 0.6 and into > 2 * out:
        hint = (
            " Adapters with the same input directions were usually trained from the same random A."
        )
    return (
        f"Their leading output directions are {_describe_overlap(out, chance_out)} (overlap "
        f"{out:.2f}, by chance {chance_out:.2f}), and their leading input directions are "
        f"{_describe_overlap(into, chance_in)} (overlap {into:.2f}, by chance {chance_in:.2f})."
        f"{hint}"
    )


def _describe_overlap(value: float, chance: float) -> str:
    above = _above_chance(value, chance)
    if above > 0.6:
        return "mostly the same"
    return "partly the same" if above > 0.1 else "different"


def _above_chance(value: float, chance: float) -> float:
    """Scale an overlap so that the overlap by chance is 0 and the largest overlap is 1."""
    return (value - chance) / (1 - chance) if chance < 1 else 0.0


def _describe_signs(inspection: Inspection) -> str:
    plain = float(distinct_pairs(mean_pairs(inspection, lambda weight: weight.agreement)).mean())
    joint = float(
        distinct_pairs(mean_pairs(inspection, lambda weight: weight.joint_agreement)).mean()
    )
    raised = joint > plain + 0.01
    change = "The joint space raises this to" if raised else "In the joint space it is"
    return (
        f"Two updates have the same sign in {plain:.0%} of the weights; by chance it would be 50%. "
        f"{change} {joint:.0%}."
    )


def _describe_ranks(inspection: Inspection) -> str:
    effective = float(mean(mean_over_weights(inspection, lambda w: w.effective_ranks)))
    kept = float(mean(mean_over_weights(inspection, lambda w: w.kept_ranks[40])))
    return (
        f"The updates' effective rank is {effective:.1f} of {mean_rank(inspection):.0f} on "
        f"average; {kept:.1f} directions have 40% of the nuclear norm."
    )


def _describe_pruning(inspection: Inspection) -> str:
    renormalized = mean_over_weights(inspection, pruned_share)
    unrenormalized = mean_over_weights(inspection, pruned_share_unrenormalized)
    names = short_names(inspection.inputs)
    rows_lost = mean_over_weights(inspection, lambda w: _whole_rows(w.pruned_unrenormalized))
    worst = int(np.nanargmax(unrenormalized - renormalized))
    if unrenormalized[worst] - renormalized[worst] >= ENTRIES_LOST:
        rows = (
            f", and {rows_lost[worst]:.0%} of its rows completely"
            if rows_lost[worst] >= ROWS_LOST
            else ""
        )
        return (
            f"Without its renormalization, DRM would prune {unrenormalized[worst]:.0%} of the "
            f"entries of {names[worst]} at density {DENSITY:g}{rows}. With renormalization it "
            f"prunes {renormalized[worst]:.0%} of the entries."
        )
    rows_pruned = mean_over_weights(inspection, lambda w: _whole_rows(w.pruned))
    if float(mean(rows_lost - rows_pruned)) >= ROWS_LOST:
        return (
            f"Without its renormalization, DRM would prune {mean(rows_lost):.0%} of the rows of "
            f"joint coordinates completely at density {DENSITY:g}, in all inputs to the same "
            f"extent. With renormalization it prunes {mean(rows_pruned):.0%}."
        )
    return (
        "Renormalization changes little for these inputs: without it too, DRM would prune about "
        f"the same share of every input and of every direction at density {DENSITY:g}."
    )


def _whole_rows(rows: Sequence[PrunedRows | None]) -> list[float | None]:
    return [None if own is None else own.whole for own in rows]


def _describe_unchanged(inspection: Inspection) -> str:
    if not inspection.unchanged:
        return ""
    if layers := unchanged_layers(inspection):
        listed = ", ".join(map(str, layers))
        return f"No input changes layer{'s' if len(layers) > 1 else ''} {listed}."
    count = len(inspection.unchanged)
    names = ", ".join(inspection.unchanged[:2])
    others = f" and {count - 2} more" if count > 2 else ""
    return f"No input changes {count} tensor{'s' if count > 1 else ''}: {names}{others}."


def join(names: Sequence[str]) -> str:
    """Return names as in "a, b and c"."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _lowest_pair(pairs: Array, inspection: Inspection) -> str:
    """Return the names of the two inputs with the lowest value."""
    names = short_names(inspection.inputs)
    masked = np.where(np.tri(len(pairs), dtype=bool), np.nan, pairs)
    i, j = np.unravel_index(int(np.nanargmin(masked)), masked.shape)
    return f"{names[int(i)]} and {names[int(j)]}"
