"""Suggest parameters to start from, by an inspection and by the measurements in the docs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_low

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    mean,
    mean_over_weights,
    mean_rank,
    short_names,
    total_norms,
)
from mergekit_spectral.inspecting.takeaways import UNEVEN

MANY = 8
"""Minimum number of inputs to which what was measured with ten applies."""

NUMBERS = {2: "two", 5: "five", 10: "ten"}

BEST_SCALES: dict[str, dict[bool, dict[int, tuple[float, ...]]]] = {
    "task_arithmetic": {
        True: {2: (0.4, 0.7, 1), 5: (0.2, 0.4, 0.4), 10: (0.2,)},
        False: {2: (0.4, 0.7, 1), 5: (0.7, 0.7, 0.7), 10: (0.2,)},
    },
    "ties": {
        True: {2: (0.7, 1, 1), 5: (0.4, 1, 1.7), 10: (0.4,)},
        False: {2: (1, 1.7, 1.7), 5: (1.7, 1.7, 1.7), 10: (0.4,)},
    },
    "dare_ties": {
        True: {2: (0.4, 1, 1), 5: (0.2, 0.4, 0.4), 10: (0.1, 0.1, 0.1)},
        False: {2: (0.7, 0.7, 1), 5: (0.4, 0.4, 0.7), 10: (0.2, 0.2, 0.2)},
    },
    "della": {
        True: {2: (0.7, 0.7, 1), 5: (0.4, 0.7, 0.7), 10: (0.4, 0.4, 0.4)},
        False: {2: (1, 1, 1.7), 5: (1, 1, 1.7), 10: (0.7, 1, 1)},
    },
    "drm": {
        True: {2: (0.7, 1.7, 1.7), 5: (0.7, 1, 1.7), 10: (0.4,)},
        False: {2: (1, 1.7, 1.7), 5: (1.7, 1.7, 1.7), 10: (1.7,)},
    },
    "knots_ties": {
        True: {2: (0.7, 1, 1), 5: (1, 1.7, 3), 10: (0.7,)},
        False: {2: (1, 1, 1.7), 5: (1.7, 1.7, 1.7), 10: (1.7,)},
    },
    "knots_dare_ties": {
        True: {2: (0.4, 0.7, 1), 5: (0.4, 0.4, 1), 10: (0.1, 0.1, 0.2)},
        False: {2: (0.7, 0.7, 1), 5: (0.4, 0.7, 0.7), 10: (0.2, 0.2, 0.2)},
    },
    "star": {
        True: {2: (0.7, 1, 1), 5: (1, 1, 1.7), 10: (0.7,)},
        False: {2: (0.7, 1, 1), 5: (1, 1, 1), 10: (1,)},
    },
    "iso": {
        True: {2: (0.4, 1, 1), 5: (0.4, 0.4), 10: (0.2,)},
        False: {2: (1, 1.7), 5: (1.7, 1.7, 1.7), 10: (0.7,)},
    },
    "tsvm": {
        True: {2: (0.4, 1, 1), 5: (0.2, 1), 10: (0.2,)},
        False: {2: (1.7,), 5: (1, 1.7, 1.7), 10: (1.7,)},
    },
    "actmat": {
        True: {5: (0.2, 0.7)},
        False: {5: (1, 1, 1), 10: (1,)},
    },
}
"""The best λ of each measured merge (docs/choosing.md, "Which λ").

By method, then whether the inputs are adapters, then their number.
"""


@dataclass(frozen=True)
class Suggestion:
    """A suggested value of a parameter.

    Attributes:
        name: name of the parameter in a recipe.
        value: value for the recipe.
        reason: reason for the value, one sentence.
    """

    name: str
    value: str
    reason: str


def suggestions(inspection: Inspection) -> list[Suggestion]:
    """Return suggested parameters, with the reasons."""
    if not inspection.weights or len(inspection.inputs) < 2:
        return []
    found = []
    norms = total_norms(inspection)
    names = short_names(inspection.inputs)
    if norms.min() > 0 and norms.max() / norms.min() >= UNEVEN:
        weights = norms.min() / norms
        listed = ", ".join(f"{w:.2g} for {n}" for w, n in zip(weights, names, strict=True))
        found.append(
            Suggestion(
                "weight",
                listed,
                f"The updates' norms differ by a factor of {norms.max() / norms.min():.1f}. These "
                "weights make them equal, so that the largest update does not decide all signs.",
            )
        )
    if scale := _suggest_scale(inspection):
        found.append(scale)
    if inspection.method == "knots_ties":
        found.append(_suggest_density(inspection))
    if inspection.method == "star":
        found.append(_suggest_eta(inspection))
    return found


def _suggest_scale(inspection: Inspection) -> Suggestion | None:
    """Suggest the λ that was best for inputs of this kind and about this number."""
    best = BEST_SCALES.get(inspection.method, {}).get(inspection.lora, {})
    count = len(inspection.inputs)
    measured = 2 if count <= 3 else 5 if count < MANY else 10
    if measured not in best:
        return None
    scales = sorted(best[measured])
    ends = dict.fromkeys((f"{scales[0]:g}", f"{scales[-1]:g}"))
    kind = "adapters" if inspection.lora else "full fine-tunes"
    return Suggestion(
        "lambda",
        f"{median_low(scales):g}",
        f"In measurements with {NUMBERS[measured]} {kind} of a small model, "
        f"{' to '.join(ends)} was best for {inspection.method}.",
    )


def _suggest_density(inspection: Inspection) -> Suggestion:
    if inspection.lora and len(inspection.inputs) >= MANY:
        return Suggestion(
            "density",
            "1.0",
            "In measurements with ten adapters of a small model, it was as good as 0.2 or better.",
        )
    return Suggestion(
        "density",
        "0.2",
        "In measurements with fine-tunes of a small model, it was 1 to 5 points better than 1.0.",
    )


def _suggest_eta(inspection: Inspection) -> Suggestion:
    ranks = float(mean(mean_over_weights(inspection, lambda w: w.kept_ranks[40])))
    return Suggestion(
        "eta",
        "40",
        "This is the paper's value. On average it keeps "
        f"{ranks:.1f} of {mean_rank(inspection):.0f} directions of these updates; rescaling "
        "restores the nuclear norm.",
    )
