"""Decide from an inspection which inputs to merge, how, and with which recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.recipe_text import RecipeChanges
from mergekit_spectral.inspecting.suggestions import Recommendation, equal_weights, recommend
from mergekit_spectral.inspecting.summary import (
    Array,
    adapter_ranks,
    full_fine_tunes,
    mean,
    mean_rank,
    relative_sizes,
    rounding_shares,
    total_cosines,
    total_norms,
)
from mergekit_spectral.inspecting.takeaways import OUTLIER, UNEVEN, join, takeaways
from mergekit_spectral.reporting.names import short_names

CHOOSING = "docs/choosing.md"
"""The page of the docs with the measurements behind the recommendation."""
FOREIGN = 0.5
"""An input whose update has at least this share of the base's norm is probably not a fine-tune of
that base. Fine-tunes have 0.1 to 10%, and models that were trained independently about 140%."""
ROUNDED = 0.1
"""The share of rounding errors in updates is reported from this share of the squared norm on."""
MOST = 0.3
"""Largest `rank_tolerance` that is recommended."""
COPY = 0.95
"""Two inputs whose updates have at least this cosine are copies of each other."""
SIMILAR = 0.3
"""Updates with at least this cosine add up."""
CONFLICT = -0.1
"""Updates with at most this cosine cancel in part."""


@dataclass(frozen=True)
class Answer:
    """An answer to one question about the inputs.

    Attributes:
        question: a word or two.
        answer: the answer, in a few words.
        reason: the evidence, in a sentence or two.
    """

    question: str
    answer: str
    reason: str


@dataclass(frozen=True)
class Dropped:
    """An input that is better left out.

    Attributes:
        input: index of the input.
        reason: why, as the end of a sentence whose subject is the input.
    """

    input: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What to do with the inputs.

    Attributes:
        headline: what to do, one sentence.
        answers: the reasons, the most important one first.
        dropped: the inputs that are better left out.
        changes: the changes to the recipe; None if there is nothing to merge.
    """

    headline: str
    answers: tuple[Answer, ...]
    dropped: tuple[Dropped, ...]
    changes: RecipeChanges | None


def decide(inspection: Inspection) -> Verdict:
    """Decide which inputs to merge, and how."""
    names = short_names(inspection.inputs)
    if not inspection.weights:
        return Verdict(takeaways(inspection)[0], (), (), None)
    dropped = tuple(_find_dropped(inspection))
    out = {each.input for each in dropped}
    kept = [number for number in range(len(names)) if number not in out]
    drop = _answer_drop(dropped, names)
    if len(kept) < 2:
        return Verdict(
            _describe_single(kept, dropped, names), (drop,) if dropped else (), dropped, None
        )
    kind = _describe_kind(inspection, kept)
    compatible, balanced = _answer_compatible(inspection, kept), _answer_balanced(inspection, kept)
    recommended = recommend(kind.adapters, len(kept))
    settings = {"lambda": recommended.scale}
    tolerance = _tolerance(inspection, kept, recommended.method)
    if tolerance is not None:
        settings["rank_tolerance"] = tolerance
    answers = [compatible, balanced, drop, kind.answer]
    answers += _answer_method(recommended, tolerance)
    weights = equal_weights(inspection, kept)
    changes = RecipeChanges(
        method=recommended.method,
        settings=settings,
        weights={inspection.inputs[t]: weight for t, weight in weights.items()},
        dropped=[inspection.inputs[each.input] for each in dropped],
        reasons=_reasons(inspection, recommended, dropped, names),
    )
    how = f"with `{recommended.method}` at λ = {recommended.scale:g}."
    what = f"{len(kept)} {kind.answer.answer} {how}"
    out_names = join([names[each.input] for each in dropped]) if dropped else ""
    headline = f"Drop {out_names}, and merge the other {what}" if dropped else f"Merge these {what}"
    if compatible.answer == "no":
        headline = (
            f"{headline[:-1]}, but expect losses: {_name_conflict(inspection, kept)} conflict."
        )
    return Verdict(headline, tuple(answers), dropped, changes)


def _find_dropped(inspection: Inspection) -> list[Dropped]:
    """Return the inputs that are better left out, each with one reason."""
    norms, cosines = total_norms(inspection), total_cosines(inspection)
    names = short_names(inspection.inputs)
    sizes = relative_sizes(inspection)
    changed = norms[norms > 0]
    # The lower one of two medians: of two large and two small inputs, none is the exception.
    typical = float(np.sort(changed)[(len(changed) - 1) // 2])
    selected = any(not each.why for each in inspection.left_out)
    found: list[Dropped] = []
    kept: list[int] = []
    for number, norm in enumerate(norms):
        copy = next((other for other in kept if cosines[other, number] >= COPY), None)
        # An input of some slices only has a small update for that reason.
        everywhere = all(weight.norms[number] is not None for weight in inspection.weights)
        reason = ""
        if norm == 0 and not selected:
            reason = "changes nothing"
        elif sizes is not None and sizes[number] >= FOREIGN:
            reason = (
                f"differs from the base by {sizes[number]:.0%} of the base's norm, so it was "
                "probably not fine-tuned from this base"
            )
        elif copy is not None:
            reason = (
                f"is nearly a copy of {names[copy]} (cosine {cosines[copy, number]:.2f}), which "
                "would count twice"
            )
        elif everywhere and 0 < norm <= typical / OUTLIER:
            reason = (
                f"hardly changes anything: its update has {norm / typical:.0%} of the size that "
                "the others' have"
            )
        if reason:
            found.append(Dropped(number, reason))
        else:
            kept.append(number)
    return found


def _describe_single(kept: Sequence[int], dropped: Sequence[Dropped], names: list[str]) -> str:
    if not kept and len(names) > 1:
        return "Check `base_model`: no input seems to be a fine-tune of this base."
    if not kept:
        return f"Nothing to merge: {names[0]} is the only input, and {dropped[0].reason}."
    if not dropped:
        return f"Nothing to merge: {names[kept[0]]} is the only input."
    return f"Nothing to merge: use {names[kept[0]]} as it is."


def _answer_compatible(inspection: Inspection, kept: Sequence[int]) -> Answer:
    cosines = total_cosines(inspection)[np.ix_(kept, kept)]
    pairs = cosines[np.triu_indices(len(kept), k=1)]
    pairs = pairs[~np.isnan(pairs)]
    if not pairs.size:
        return Answer("compatible", "yes", "They change different tensors.")
    average, least = float(pairs.mean()), float(pairs.min())
    if least <= CONFLICT:
        against = np.nanmean(np.where(np.eye(len(kept), dtype=bool), np.nan, cosines), axis=1)
        worst = short_names(inspection.inputs)[kept[int(np.nanargmin(against))]]
        choice = f" If one must go, it is {worst}, which agrees least." if len(kept) > 2 else ""
        return Answer(
            "compatible",
            "no",
            f"{_name_conflict(inspection, kept)} have a cosine of {least:.2f}, so they cancel in "
            f"part.{choice}",
        )
    if average >= SIMILAR:
        return Answer(
            "compatible",
            "yes",
            f"The updates are similar (mean cosine {average:.2f}), so they add up.",
        )
    return Answer(
        "compatible",
        "yes",
        f"The updates hardly overlap (cosines from {_two_digits(least)} to "
        f"{_two_digits(float(pairs.max()))}), so they neither cancel nor add up.",
    )


def _two_digits(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # without -0.00


def _name_conflict(inspection: Inspection, kept: Sequence[int]) -> str:
    names = short_names(inspection.inputs)
    cosines: Array = total_cosines(inspection)[np.ix_(kept, kept)]
    masked = np.where(np.tri(len(kept), dtype=bool), np.nan, cosines)
    i, j = np.unravel_index(int(np.nanargmin(masked)), masked.shape)
    return f"{names[kept[int(i)]]} and {names[kept[int(j)]]}"


def _answer_balanced(inspection: Inspection, kept: Sequence[int]) -> Answer:
    names = short_names(inspection.inputs)
    norms = total_norms(inspection)[list(kept)]
    largest, smallest = int(norms.argmax()), int(norms.argmin())
    if norms[smallest] == 0:
        return Answer(
            "balanced",
            "unknown",
            f"{names[kept[smallest]]} changes none of the inspected tensors; inspect all of them.",
        )
    ratio = float(norms[largest] / norms[smallest])
    if ratio < UNEVEN:
        return Answer(
            "balanced", "yes", f"The updates' norms differ by a factor of at most {ratio:.1f}."
        )
    check = (
        " Check that it was fine-tuned from this base."
        if norms[largest] >= OUTLIER * float(np.median(np.delete(norms, largest)))
        else ""
    )
    return Answer(
        "balanced",
        "no",
        f"The update of {names[kept[largest]]} is {ratio:.1f} times as large as that of "
        f"{names[kept[smallest]]}, so it decides most signs. The weights in the recipe make all "
        f"equally large.{check}",
    )


def _answer_drop(dropped: Sequence[Dropped], names: Sequence[str]) -> Answer:
    if not dropped:
        return Answer("drop", "none", "Every input changes the merge, and none twice.")
    subjects = [names[each.input] for each in dropped] if len(dropped) > 1 else ["It"]
    reasons = [f"{who} {each.reason}." for who, each in zip(subjects, dropped, strict=True)]
    return Answer("drop", join([names[each.input] for each in dropped]), " ".join(reasons))


@dataclass(frozen=True)
class _Kind:
    """What the inputs are.

    Attributes:
        answer: the answer for readers.
        adapters: whether what was measured with adapters applies.
    """

    answer: Answer
    adapters: bool


def _describe_kind(inspection: Inspection, kept: Sequence[int]) -> _Kind:
    ranks, full = adapter_ranks(inspection), full_fine_tunes(inspection)
    merged = [t for t in kept if ranks[t] is not None]
    whole = [t for t in kept if full[t]]
    names = short_names(inspection.inputs)
    follows = (
        f"{join([names[t] for t in merged])} {'is' if len(merged) == 1 else 'are'} of low rank (up "
        f"to {max((ranks[t] or 0 for t in merged), default=0)}) but for rounding errors, as when "
        "adapters are merged into a checkpoint. Better merge the adapters themselves, as "
        "base+adapter, or extract them with mergekit-extract-lora: that is faster and without "
        "these errors."
    )
    if whole and len(whole) < len(kept):
        rest = follows if merged else "The others are adapters."
        reason = f"{join([names[t] for t in whole])} changed in many directions. {rest}"
        return _Kind(Answer("inputs", "full fine-tunes and LoRA adapters", reason), False)
    if whole:
        spread = mean([[weight.effective_ranks[t] for t in whole] for weight in inspection.weights])
        reason = (
            f"Their updates spread over {float(mean(spread)):.0f} directions on average, of "
            f"{mean_rank(inspection):.0f}."
        )
        lost = float(rounding_shares(inspection)[whole].mean())
        if lost >= ROUNDED:
            reason += (
                f" But about {lost:.0%} of their squared norm is what rounding in the "
                "checkpoints' dtype makes; a checkpoint of higher precision keeps more."
            )
        return _Kind(Answer("inputs", "full fine-tunes", reason), False)
    if merged:
        kind = "merged LoRA adapters" if len(merged) == len(kept) else "LoRA adapters"
        return _Kind(Answer("inputs", kind, follows), True)
    reason = "They are read in factors, without the base."
    return _Kind(Answer("inputs", "LoRA adapters", reason), True)


def _tolerance(inspection: Inspection, kept: Sequence[int], method: str) -> float | None:
    """Return a `rank_tolerance` that leaves out rounding errors, if the default does not.

    Only merged adapters have directions that are known to be rounding errors.
    """
    merged = [t for t, rank in enumerate(adapter_ranks(inspection)) if rank is not None]
    edges = [
        max(rounding.edge for t in merged if (rounding := weight.roundings[t]) is not None)
        for weight in inspection.weights
        if any(weight.roundings[t] is not None for t in merged)
    ]
    spec = find_method(method)
    assert spec is not None
    default = next(p.default for p in spec.spec.parameters if p.name == "rank_tolerance")
    if not edges:
        return None
    # Errors of several inputs add up as independent numbers do.
    floor = min(MOST, median(edges) * math.sqrt(len(set(merged).intersection(kept)) or 1))
    return math.ceil(100 * floor) / 100 if floor > default else None


def _answer_method(recommended: Recommendation, tolerance: float | None) -> list[Answer]:
    method, scale = recommended.method, recommended.scale
    answers = [
        Answer("method", method, f"{recommended.evidence} See {CHOOSING}."),
        Answer(
            "lambda",
            f"{scale:g}",
            "This is the first thing to tune on your own task: these measurements are of "
            "fine-tunes of a small model.",
        ),
        Answer("density", "none", f"`{method}` has no density: it keeps whole directions."),
    ]
    if tolerance is not None:
        reason = "Directions below this share of the largest singular value are rounding errors."
        answers.append(Answer("rank_tolerance", f"{tolerance:g}", reason))
    return answers


def _reasons(
    inspection: Inspection,
    recommended: Recommendation,
    dropped: Sequence[Dropped],
    names: Sequence[str],
) -> list[str]:
    lines = [
        f"{inspection.recipe}, as `mergekit-spectral inspect` recommends it: {recommended.method} "
        f"instead of {inspection.method}."
        if recommended.method != inspection.method
        else f"{inspection.recipe}, as `mergekit-spectral inspect` recommends it."
    ]
    return [*lines, *(f"Without {names[each.input]}: it {each.reason}." for each in dropped)]
