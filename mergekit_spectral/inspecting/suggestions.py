"""Suggest parameters to start from, by an inspection and by the measurements in the docs."""

from __future__ import annotations

from dataclasses import dataclass

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
"""Minimum number of inputs for which the λ measured on ten inputs is suggested."""

SCALES: dict[str, dict[tuple[bool, bool], tuple[float, str]]] = {
    # Keys: whether the inputs are adapters, and whether there are at least `MANY`.
    # Values: the λ to start from, and the range of the best λ in the measurements.
    "task_arithmetic": {
        (True, False): (0.4, "0.2 to 1"),
        (True, True): (0.2, "0.2"),
        (False, False): (0.7, "0.4 to 1"),
        (False, True): (0.2, "0.2"),
    },
    "ties": {
        (True, False): (1.0, "0.4 to 1.7"),
        (True, True): (0.4, "0.4"),
        (False, False): (1.7, "1 to 1.7"),
        (False, True): (0.4, "0.4"),
    },
    "dare_ties": {
        (True, False): (0.4, "0.2 to 1"),
        (True, True): (0.1, "0.1"),
        (False, False): (0.7, "0.4 to 1"),
        (False, True): (0.2, "0.2"),
    },
    "della": {
        (True, False): (0.7, "0.4 to 1"),
        (True, True): (0.4, "0.4"),
        (False, False): (1.0, "1 to 1.7"),
        (False, True): (1.0, "0.7 to 1"),
    },
    "drm": {
        (True, False): (1.0, "0.7 to 1.7"),
        (True, True): (0.4, "0.4"),
        (False, False): (1.7, "1 to 1.7"),
        (False, True): (1.7, "1.7"),
    },
    "knots_ties": {
        (True, False): (1.0, "0.7 to 3"),
        (True, True): (0.7, "0.7"),
        (False, False): (1.7, "1 to 1.7"),
        (False, True): (1.7, "1.7"),
    },
    "knots_dare_ties": {
        (True, False): (0.4, "0.4 to 1"),
        (True, True): (0.1, "0.1 to 0.2"),
        (False, False): (0.7, "0.4 to 1"),
        (False, True): (0.2, "0.2"),
    },
    "star": {
        (True, False): (1.0, "0.7 to 1.7"),
        (True, True): (0.7, "0.7"),
        (False, False): (1.0, "0.7 to 1"),
        (False, True): (1.0, "1"),
    },
    "iso": {
        (True, False): (1.0, "0.4 to 1"),
        (True, True): (0.2, "0.2"),
        (False, False): (1.7, "1 to 1.7"),
        (False, True): (0.7, "0.7"),
    },
    "tsvm": {
        (True, False): (1.0, "0.2 to 1"),
        (True, True): (0.2, "0.2"),
        (False, False): (1.7, "1.7"),
    },
}
"""λ by method, from docs/choosing.md; what was not measured is missing."""


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
    """Suggest the λ that was best for inputs of this kind and number (docs/choosing.md)."""
    many = len(inspection.inputs) >= MANY
    measured = SCALES.get(inspection.method, {}).get((inspection.lora, many))
    if measured is None:
        return None
    start, chosen = measured
    kind = "adapters" if inspection.lora else "full fine-tunes"
    count = "ten" if many else "two and five"
    return Suggestion(
        "lambda",
        str(start),
        f"In measurements with {count} {kind} of a small model, {chosen} was best for "
        f"{inspection.method}.",
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
