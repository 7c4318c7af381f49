"""Parameters to start from, as an inspection and what was measured suggest them."""

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
"""So many inputs are merged with a smaller λ."""

SCALES: dict[str, dict[tuple[bool, bool], tuple[float, str]]] = {
    # By whether inputs are adapters, and many: what to start from, and what was chosen.
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
}
"""λ by method, as in docs/choosing.md."""


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
    if inspection.method in SCALES:
        made.append(_scale(inspection))
    if inspection.method == "knots_ties":
        made.append(_density(inspection))
    if inspection.method == "star":
        made.append(_eta(inspection))
    return made


def _scale(inspection: Inspection) -> Suggestion:
    """Return the λ that was measured to serve inputs of this kind and number (docs/choosing.md)."""
    many = len(inspection.inputs) >= MANY
    start, chosen = SCALES[inspection.method][inspection.lora, many]
    kind = "adapters" if inspection.lora else "full fine-tunes"
    count = "ten" if many else "two and of five"
    return Suggestion(
        "lambda",
        str(start),
        f"Of {count} {kind} of a small model, {chosen} was measured to be best "
        f"for {inspection.method}.",
    )


def _density(inspection: Inspection) -> Suggestion:
    if inspection.lora and len(inspection.inputs) >= MANY:
        return Suggestion("density", "1.0", "Of ten adapters it did as well as 0.2, or better.")
    return Suggestion(
        "density",
        "0.2",
        "It was measured to be 1 to 5 points better than 1.0 of a small model's fine-tunes.",
    )


def _eta(inspection: Inspection) -> Suggestion:
    ranks = float(mean(mean_over_weights(inspection, lambda w: w.kept_ranks[40])))
    return Suggestion(
        "eta",
        "40",
        f"The paper's keeps {ranks:.1f} of {mean_rank(inspection):.0f} directions here; what it "
        "drops is made up for by the rescaling.",
    )
