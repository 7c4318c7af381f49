"""What a reader should take away from an inspection, in words that its numbers decide."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    Array,
    between,
    mean_over_weights,
    mean_pairs,
    pruned,
    pruned_without,
    short_names,
    total_norms,
    unchanged_layers,
)
from mergekit_spectral.inspecting.weights import DENSITY

OUTLIER = 10
"""An update this many times as large as the others' median is called an outlier."""
MANY = 8
"""So many inputs are merged with a smaller λ."""
ENTRIES_LOST = 0.02
"""An input that loses so much more of its entries without renormalization is named."""
ROWS_LOST = 0.05
"""From this share on it is told that rows of coordinates are lost whole."""
UNEVEN = 2
"""Updates that differ by this factor are called uneven."""


@dataclass(frozen=True)
class Suggestion:
    """A parameter to start from.

    Attributes:
        name: in a recipe.
        value: as a recipe would have it.
        reason: in a sentence.
    """

    name: str
    value: str
    reason: str


def takeaways(inspection: Inspection) -> list[str]:
    """Return sentences, the most important first."""
    if not inspection.weights:
        looked = "" if not inspection.left_out else " that was looked at"
        others = len(inspection.others)
        if others:
            return [f"No input changes any matrix{looked}, but {others} vectors or embeddings."]
        end = "." if looked else ", so a merge is the base model."
        return [f"No input changes any tensor{looked}{end}"]
    told = [_sizes(inspection)]
    if len(inspection.inputs) > 1:
        told += [_directions(inspection), _subspaces(inspection), _signs(inspection)]
    told += [_ranks(inspection), _pruning(inspection), _unchanged(inspection)]
    return [sentence for sentence in told if sentence]


def suggestions(inspection: Inspection) -> list[Suggestion]:
    """Return parameters to start from, with the reasons."""
    if not inspection.weights or len(inspection.inputs) < 2:
        return []
    made = []
    norms = total_norms(inspection)
    names = short_names(inspection.inputs)
    if norms.min() > 0 and norms.max() / norms.min() >= UNEVEN:
        weights = norms.min() / norms
        listed = ", ".join(f"{w:.2g} for {n}" for w, n in zip(weights, names, strict=True))
        made.append(
            Suggestion(
                "weight",
                listed,
                f"The updates' norms differ by a factor of {norms.max() / norms.min():.1f}; these "
                "make them equal, so that the largest does not decide all signs.",
            )
        )
    made.append(_scale(inspection))
    ranks = mean_over_weights(inspection, lambda w: w.kept_ranks[40])
    made.append(
        Suggestion(
            "eta",
            "40",
            f"STAR's own keeps {ranks.mean():.1f} of {_rank(inspection):.0f} directions here; "
            "what it drops is made up for by the rescaling.",
        )
    )
    return made


def _scale(inspection: Inspection) -> Suggestion:
    """Return the λ that was measured to serve inputs of this kind and number (docs/choosing.md)."""
    few = len(inspection.inputs) < MANY
    if inspection.lora:
        chosen = "between 0.7 and 1.7 of two to five adapters" if few else "0.4 to 0.7 of ten"
        return Suggestion("lambda", "1.0" if few else "0.5", f"The best was measured {chosen}.")
    return Suggestion(
        "lambda",
        "1.7 for drm and knots_ties, 1.0 for star",
        "The best was measured there of five and of ten full fine-tunes; of two, 1.0 does as well.",
    )


def _sizes(inspection: Inspection) -> str:
    norms = total_norms(inspection)
    names = short_names(inspection.inputs)
    if len(norms) == 1:
        return ""
    largest = int(norms.argmax())
    others = float(np.median(np.delete(norms, largest)))
    if others and norms[largest] >= OUTLIER * others:
        return (
            f"{names[largest]} is an outlier: its update is {norms[largest] / others:.0f} times as "
            "large as the others' median, so it decides nearly all signs; give it a smaller "
            "weight, or look whether it is of this base at all."
        )
    if norms.min() > 0 and norms[largest] >= UNEVEN * norms.min():
        return (
            f"The updates are of uneven size: that of {names[largest]} is "
            f"{norms[largest] / norms.min():.1f} times that of {names[int(norms.argmin())]}, which "
            "it will outvote."
        )
    relative = [weight.relative_norms for weight in inspection.weights if weight.relative_norms]
    share = f", about {np.mean(relative):.1%} of the base's weights" if relative else ""
    spread = f", within a factor of {norms.max() / norms.min():.1f}" if norms.min() > 0 else ""
    return f"The updates are of about the same size{spread}{share}."


def _directions(inspection: Inspection) -> str:
    cosines = mean_pairs(inspection, lambda weight: weight.cosines)
    mean = float(between(cosines).mean())
    pair = _extreme(cosines, inspection)
    if mean > 0.3:
        return (
            f"The updates point much the same way: their mean cosine is {mean:.2f}, so they add up "
            f"rather than conflict; the least alike are {pair}."
        )
    if between(cosines).min() < -0.1:
        return (
            f"Some updates pull apart: {pair} have a mean cosine of {between(cosines).min():.2f}."
        )
    return (
        f"As vectors the updates are nearly orthogonal, with a mean cosine of {mean:.2f}: they "
        f"neither add up nor cancel; the least alike are {pair}."
    )


def _subspaces(inspection: Inspection) -> str:
    out = float(between(mean_pairs(inspection, lambda weight: weight.overlap_out)).mean())
    into = float(between(mean_pairs(inspection, lambda weight: weight.overlap_in)).mean())
    chance_out, chance_in = (
        fmean(w.overlap_dimensions / w.shape[side] for w in inspection.weights) for side in (0, 1)
    )
    hint = ""
    if inspection.lora and into > 0.6 and into > 2 * out:
        hint = (
            " Adapters that read the same directions were usually trained from the same random A; "
            "`direction: vertical` shares that side."
        )
    return (
        f"They write to {_often(out, chance_out)} directions (overlap of the leading ones "
        f"{out:.2f}, by chance {chance_out:.2f}) and read from {_often(into, chance_in)} ones "
        f"({into:.2f}, by chance {chance_in:.2f}).{hint}"
    )


def _often(value: float, chance: float) -> str:
    if value > 0.6:
        return "mostly the same"
    return "partly the same" if value > max(0.15, 2 * chance) else "different"


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
    effective = mean_over_weights(inspection, lambda weight: weight.effective_ranks).mean()
    kept = mean_over_weights(inspection, lambda weight: weight.kept_ranks[40]).mean()
    return (
        f"The updates' effective rank is {effective:.1f} of {_rank(inspection):.0f} on average; "
        f"{kept:.1f} directions hold 40% of the nuclear norm."
    )


def _pruning(inspection: Inspection) -> str:
    with_it = mean_over_weights(inspection, pruned)
    without = mean_over_weights(inspection, pruned_without)
    names = short_names(inspection.inputs)
    lost = mean_over_weights(inspection, lambda w: [r.whole for r in w.pruned_unrenormalized])
    worst = int(without.argmax())
    if without[worst] - with_it[worst] >= ENTRIES_LOST:
        whole = f", and {lost[worst]:.0%} of its rows whole" if lost[worst] >= ROWS_LOST else ""
        return (
            f"Without DRM's renormalization {names[worst]} would lose {without[worst]:.0%} of its "
            f"entries at density {DENSITY:g}{whole}; with it, {with_it[worst]:.0%} of the entries."
        )
    if lost.mean() >= ROWS_LOST:
        kept = mean_over_weights(inspection, lambda w: [r.whole for r in w.pruned]).mean()
        return (
            f"Without DRM's renormalization {lost.mean():.0%} of the rows of joint coordinates "
            f"would be pruned whole at density {DENSITY:g}, alike in all inputs; with it, "
            f"{kept:.0%}."
        )
    return (
        f"Renormalization changes little here: at density {DENSITY:g} DRM would prune every input "
        "and every direction about alike without it too."
    )


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


def _rank(inspection: Inspection) -> float:
    return float(np.mean([weight.ranks for weight in inspection.weights]))


def _extreme(pairs: Array, inspection: Inspection) -> str:
    names = short_names(inspection.inputs)
    masked = pairs + np.where(np.tri(len(pairs), dtype=bool), np.inf, 0)
    i, j = np.unravel_index(int(masked.argmin()), masked.shape)
    return f"{names[int(i)]} and {names[int(j)]}"
