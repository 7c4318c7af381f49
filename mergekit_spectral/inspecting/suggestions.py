"""Suggest methods and parameters, by an inspection and by the measurements in the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    mean,
    mean_over_weights,
    mean_rank,
    total_norms,
)
from mergekit_spectral.inspecting.takeaways import UNEVEN
from mergekit_spectral.reporting.names import short_names

MANY = 8
"""Minimum number of inputs to which what was measured with ten applies."""

FEW = 4
"""Maximum number of inputs to which what was measured with two to four applies."""

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
        True: {2: (0.4, 1, 1), 5: (0.4, 0.4, 0.4, 0.7), 10: (0.2,)},
        False: {2: (1, 1.7), 5: (1.7, 1.7, 1.7), 10: (0.7,)},
    },
    "tsvm": {
        True: {2: (0.4, 1, 1), 5: (0.2, 0.2, 0.4, 1), 10: (0.2,)},
        False: {2: (1.7,), 5: (1, 1.7, 1.7), 10: (1.7,)},
    },
    "actmat": {
        True: {5: (0.2, 0.7)},
        False: {5: (1, 1, 1), 10: (1,)},
    },
}
"""The best λ of each measured merge (docs/quality.md, "Which λ").

By method, then whether the inputs are adapters, then their number. Five adapters of the last three
methods include a merge of six.
"""


@dataclass(frozen=True)
class Recommendation:
    """A method to start with, and its λ without data to tune on.

    Attributes:
        method: name of the method in a recipe.
        scale: value of `lambda`.
        evidence: what was measured with fine-tunes of a small model, one or two sentences.
    """

    method: str
    scale: float
    evidence: str


RECOMMENDED: dict[bool, dict[int, Recommendation]] = {
    True: {
        2: Recommendation(
            "iso",
            1.0,
            "For four adapters, `iso` kept 83% of the adapters' own accuracy and `ties` 71%; for "
            "two, all methods are within the noise.",
        ),
        5: Recommendation(
            "iso",
            0.4,
            "For five adapters, tuning chose λ = 0.4 in two of three merges. With a tuned λ, "
            "all methods are within 5 points.",
        ),
        10: Recommendation(
            "iso",
            0.2,
            "For ten adapters, tuning chose λ = 0.2; at λ = 1, `iso` kept only 33% of the "
            "adapters' own accuracy. `knots_ties` at λ = 1 kept 48%.",
        ),
    },
    False: {
        2: Recommendation(
            "tsvm",
            1.0,
            "For four full fine-tunes, `tsvm` kept 95% of the fine-tunes' own accuracy, `drm` 84% "
            "and `ties` 72%; for two, all methods are within the noise.",
        ),
        5: Recommendation(
            "actmat",
            1.0,
            "For five full fine-tunes, `actmat` kept 95% of the fine-tunes' own accuracy, `tsvm` "
            "94%, `iso` 89% and `drm` 70%, at λ = 1. Tuning chose λ = 1 for `actmat` every time.",
        ),
        10: Recommendation(
            "actmat",
            1.0,
            "For ten full fine-tunes, `actmat` and `tsvm` kept 84% of the inputs' own accuracy, "
            "`iso` 70%, `drm` 57% and `ties` 46%, at λ = 1. Tuning chose λ = 1 for `actmat`, too.",
        ),
    },
}
"""The method to start with (the first table of docs/choosing.md).

By whether the inputs are adapters, then their number.
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
    if weights := equal_weights(inspection, range(len(names))):
        listed = ", ".join(f"{weight:g} for {names[t]}" for t, weight in weights.items())
        found.append(
            Suggestion(
                "weight",
                listed,
                f"The updates' norms differ by a factor of {norms.max() / norms.min():.1f}. These "
                "weights make them equal, so that the largest update does not decide all signs.",
            )
        )
    if scale := suggest_scale(inspection.method, inspection.lora, len(inspection.inputs)):
        found.append(scale)
    if inspection.method == "knots_ties":
        found.append(_suggest_density(inspection))
    if inspection.method == "star":
        found.append(_suggest_eta(inspection))
    return found


def equal_weights(inspection: Inspection, inputs: Sequence[int]) -> dict[int, float]:
    """Return weights that make the updates of some inputs equally large.

    Args:
        inspection: the inspection.
        inputs: indices of the inputs.

    Returns:
        The weight of each of these inputs, at most 1; empty if the updates differ little in size,
        or one is zero.
    """
    norms = total_norms(inspection)[list(inputs)]
    if norms.min() <= 0 or norms.max() / norms.min() < UNEVEN:
        return {}
    return {t: float(f"{norms.min() / norm:.2g}") for t, norm in zip(inputs, norms, strict=True)}


def recommend(lora: bool, count: int) -> Recommendation:
    """Return the method and the λ to start with.

    Args:
        lora: whether the inputs are adapters.
        count: number of inputs, at least 2.
    """
    return RECOMMENDED[lora][2 if count <= FEW else 5 if count < MANY else 10]


def suggest_scale(method: str, lora: bool, count: int) -> Suggestion | None:
    """Suggest λ for a method, as it was best for inputs of this kind and about this number.

    Args:
        method: name of the method.
        lora: whether the inputs are adapters.
        count: number of inputs, at least 2.

    Returns:
        The suggestion; None if the method was not measured for such inputs.
    """
    recommended = recommend(lora, count)
    if recommended.method == method:
        return Suggestion("lambda", f"{recommended.scale:g}", recommended.evidence)
    best = BEST_SCALES.get(method, {}).get(lora, {})
    measured = 2 if count <= 3 else 5 if count < MANY else 10
    if measured not in best:
        return None
    scales = sorted(best[measured])
    ends = dict.fromkeys((f"{scales[0]:g}", f"{scales[-1]:g}"))
    kind = "adapters" if lora else "full fine-tunes"
    return Suggestion(
        "lambda",
        f"{median_low(scales):g}",
        f"In measurements with {NUMBERS[measured]} {kind} of a small model, "
        f"{' to '.join(ends)} was best for {method}.",
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
