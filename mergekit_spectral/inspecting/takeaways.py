"""What a reader should take away from an inspection, in words that its numbers decide."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.pruned_rows import PrunedRows
from mergekit_spectral.inspecting.summary import (
    Array,
    between,
    inputs_changing,
    mean,
    mean_over_weights,
    mean_pairs,
    mean_rank,
    pruned,
    pruned_without,
    short_names,
    total_norms,
    unchanged_layers,
    weights_changed,
)
from mergekit_spectral.inspecting.weights import DENSITY

OUTLIER = 10
"""An update this many times as large as the others' median is called an outlier."""
ENTRIES_LOST = 0.02
"""An input that loses so much more of its entries without renormalization is named."""
ROWS_LOST = 0.05
"""From this share on it is told that rows of coordinates are lost whole."""
UNEVEN = 2
"""Updates that differ by this factor are called uneven."""


def takeaways(inspection: Inspection) -> list[str]:
    """Return sentences, the most important first."""
    if not inspection.weights:
        looked = "" if not inspection.left_out else " that was looked at"
        others = len(inspection.others)
        if others:
            return [f"No input changes any matrix{looked}, but {others} vectors or embeddings."]
        end = "." if looked else ", so a merge is the base model."
        return [f"No input changes any tensor{looked}{end}"]
    told = [_idle(inspection), _sizes(inspection), _common(inspection)]
    if max(inputs_changing(inspection)) > 1:
        told += [_directions(inspection), _subspaces(inspection), _signs(inspection)]
    told += [_ranks(inspection), _pruning(inspection), _unchanged(inspection)]
    return [sentence for sentence in told if sentence]


def _idle(inspection: Inspection) -> str:
    names = short_names(inspection.inputs)
    idle = [n for n, norm in zip(names, total_norms(inspection), strict=True) if norm == 0]
    if not idle:
        return ""
    what = "of what was looked at" if inspection.left_out else "at all"
    return f"{_listed(idle)} change{'s' if len(idle) == 1 else ''} nothing {what}."


def _sizes(inspection: Inspection) -> str:
    every = total_norms(inspection)
    names = [n for n, norm in zip(short_names(inspection.inputs), every, strict=True) if norm]
    norms = every[every > 0]
    if len(norms) < 2:
        return ""
    largest = int(norms.argmax())
    others = float(np.median(np.delete(norms, largest)))
    if norms[largest] >= OUTLIER * others:
        return (
            f"{names[largest]} is an outlier: its update is {norms[largest] / others:.0f} times as "
            "large as the others' median, so it decides nearly all signs; give it a smaller "
            "weight, or look whether it is of this base at all."
        )
    if norms[largest] >= UNEVEN * norms.min():
        return (
            f"The updates are of uneven size: that of {names[largest]} is "
            f"{norms[largest] / norms.min():.1f} times that of {names[int(norms.argmin())]}, which "
            "it will outvote."
        )
    sizes = [weight.relative_norms or () for weight in inspection.weights]
    relative = [size for weight in sizes for size in weight if size]
    share = f", about {np.mean(relative):.1%} of the base's weights" if relative else ""
    return (
        "The updates are of about the same size, within a factor of "
        f"{norms.max() / norms.min():.1f}{share}."
    )


def _common(inspection: Inspection) -> str:
    """Tell how many weights inputs have in common, if these are not all."""
    if len(inspection.inputs) == 1:
        return ""
    changing = inputs_changing(inspection)
    busy = sum(count > 0 for count in weights_changed(inspection))
    if min(changing) == busy:
        return ""
    alone = sum(count == 1 for count in changing)
    return (
        f"Of the {len(changing)} matrices that are changed, {sum(c == busy for c in changing)} are "
        f"by all inputs and {alone} by one alone; what is said of pairs is of what both change."
    )


def _directions(inspection: Inspection) -> str:
    cosines = mean_pairs(inspection, lambda weight: weight.cosines)
    average, least = float(between(cosines).mean()), float(between(cosines).min())
    pair = _extreme(cosines, inspection)
    several = f"; the least alike are {pair}" if between(cosines).size > 1 else ""
    if average > 0.3:
        return (
            f"The updates point much the same way: their mean cosine is {average:.2f}, so they add "
            f"up rather than conflict{several}."
        )
    if least < -0.1:
        return f"Some updates pull apart: {pair} have a mean cosine of {least:.2f}."
    return (
        f"As vectors the updates are nearly orthogonal, with a mean cosine of {average:.2f}: they "
        f"neither add up nor cancel{several}."
    )


def _subspaces(inspection: Inspection) -> str:
    out = float(between(mean_pairs(inspection, lambda weight: weight.overlap_out)).mean())
    into = float(between(mean_pairs(inspection, lambda weight: weight.overlap_in)).mean())
    chance_out, chance_in = (
        fmean(w.overlap_dimensions / w.shape[side] for w in inspection.weights) for side in (0, 1)
    )
    hint = ""
    if inspection.lora and _beyond(into, chance_in) > 0.6 and into > 2 * out:
        hint = (
            " Adapters that read the same directions were usually trained from the same random A."
        )
    return (
        f"They write to {_often(out, chance_out)} directions (overlap of the leading ones "
        f"{out:.2f}, by chance {chance_out:.2f}) and read from {_often(into, chance_in)} ones "
        f"({into:.2f}, by chance {chance_in:.2f}).{hint}"
    )


def _often(value: float, chance: float) -> str:
    beyond = _beyond(value, chance)
    if beyond > 0.6:
        return "mostly the same"
    return "partly the same" if beyond > 0.1 else "different"


def _beyond(value: float, chance: float) -> float:
    """Return how far an overlap is from chance towards 1, as a share."""
    return (value - chance) / (1 - chance) if chance < 1 else 0.0


def _signs(inspection: Inspection) -> str:
    plain = float(between(mean_pairs(inspection, lambda weight: weight.agreement)).mean())
    joint = float(between(mean_pairs(inspection, lambda weight: weight.joint_agreement)).mean())
    raised = joint > plain + 0.01
    change = "the joint space raises that to" if raised else "in the joint space it is"
    return (
        f"Two updates have the same sign in {plain:.0%} of the weights, where half is chance; "
        f"{change} {joint:.0%}."
    )


def _ranks(inspection: Inspection) -> str:
    effective = float(mean(mean_over_weights(inspection, lambda w: w.effective_ranks)))
    kept = float(mean(mean_over_weights(inspection, lambda w: w.kept_ranks[40])))
    return (
        f"The updates' effective rank is {effective:.1f} of {mean_rank(inspection):.0f} on "
        f"average; {kept:.1f} directions hold 40% of the nuclear norm."
    )


def _pruning(inspection: Inspection) -> str:
    with_it = mean_over_weights(inspection, pruned)
    without = mean_over_weights(inspection, pruned_without)
    names = short_names(inspection.inputs)
    lost = mean_over_weights(inspection, lambda w: _whole(w.pruned_unrenormalized))
    worst = int(np.nanargmax(without - with_it))
    if without[worst] - with_it[worst] >= ENTRIES_LOST:
        whole = f", and {lost[worst]:.0%} of its rows whole" if lost[worst] >= ROWS_LOST else ""
        return (
            f"Without DRM's renormalization {names[worst]} would lose {without[worst]:.0%} of its "
            f"entries at density {DENSITY:g}{whole}; with it, {with_it[worst]:.0%} of the entries."
        )
    kept = mean_over_weights(inspection, lambda w: _whole(w.pruned))
    if float(mean(lost - kept)) >= ROWS_LOST:
        return (
            f"Without DRM's renormalization {mean(lost):.0%} of the rows of joint coordinates "
            f"would be pruned whole at density {DENSITY:g}, alike in all inputs; with it, "
            f"{mean(kept):.0%}."
        )
    return (
        f"Renormalization changes little here: at density {DENSITY:g} DRM would prune every input "
        "and every direction about alike without it too."
    )


def _whole(rows: Sequence[PrunedRows | None]) -> list[float | None]:
    return [None if own is None else own.whole for own in rows]


def _unchanged(inspection: Inspection) -> str:
    if not inspection.unchanged:
        return ""
    if layers := unchanged_layers(inspection):
        listed = ", ".join(map(str, layers))
        return f"No input changes layer{'s' if len(layers) > 1 else ''} {listed}."
    count = len(inspection.unchanged)
    names = ", ".join(inspection.unchanged[:2])
    others = f" and {count - 2} more" if count > 2 else ""
    return f"No input changes {count} tensor{'s' if count > 1 else ''}: {names}{others}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _extreme(pairs: Array, inspection: Inspection) -> str:
    names = short_names(inspection.inputs)
    masked = np.where(np.tri(len(pairs), dtype=bool), np.nan, pairs)
    i, j = np.unravel_index(int(np.nanargmin(masked)), masked.shape)
    return f"{names[int(i)]} and {names[int(j)]}"
