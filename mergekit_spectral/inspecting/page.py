"""Write the report of an inspection as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots import DECIDING
from mergekit_spectral.inspecting.suggestions import suggestions
from mergekit_spectral.inspecting.summary import (
    PerInput,
    mean_over_weights,
    pruned_share,
    pruned_share_unrenormalized,
    total_norms,
    weights_changed,
    worst_conflicts,
)
from mergekit_spectral.inspecting.takeaways import takeaways
from mergekit_spectral.inspecting.verdict import Verdict
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.page import embedded, fill_template
from mergekit_spectral.reporting.plots import Plot

CONFLICTS = 8
"""Maximum number of conflicting pairs in the table."""
LISTED = 5
"""Maximum number of tensors that are listed as not inspected."""
HEADER = (
    "input",
    "norm",
    "matrices",
    "effective rank",
    "stable rank",
    "rank at η = 40",
    "share of joint directions",
    "pruned",
    "pruned without renormalization",
)


def write_page(
    inspection: Inspection,
    verdict: Verdict,
    recipe: str | None,
    plots: Sequence[Plot],
    path: Path,
) -> None:
    """Write the page. It needs no other file and no network.

    Args:
        inspection: the inspection.
        verdict: the decision at the top of the page.
        recipe: text of the recommended recipe; None if there is nothing to merge.
        plots: the plots, in the page's order.
        path: path of the page.
    """
    page = fill_template(
        "inspecting",
        title=f"{inspection.recipe}: {len(inspection.inputs)} inputs of {inspection.method}",
        facts=_facts(inspection),
        headline=verdict.headline,
        answers=verdict.answers,
        recipe=recipe,
        takeaways=takeaways(inspection),
        suggestions=suggestions(inspection),
        method=inspection.method,
        deciding=[embedded(plot) for plot in plots if plot.name in DECIDING],
        others=[embedded(plot) for plot in plots if plot.name not in DECIDING],
        conflicts=conflict_rows(inspection),
        header=HEADER,
        rows=input_rows(inspection),
    )
    path.write_text(page, encoding="utf-8")


def conflict_rows(inspection: Inspection) -> list[tuple[str, str, str]]:
    """Return the names of the inputs, the weight and the cosine for the worst conflicts."""
    names = short_names(inspection.inputs)
    return [
        (
            " and ".join(names[number] for number in sorted(conflict.inputs)),
            conflict.weight,
            f"{conflict.cosine:.2f}",
        )
        for conflict in worst_conflicts(inspection, CONFLICTS)
    ]


def input_rows(inspection: Inspection) -> list[tuple[str, ...]]:
    """Return a row of text for each input, with the columns of `HEADER`.

    The values are means over the matrices that the input changes.
    """
    if not inspection.weights:
        return []
    means_and_formats: list[tuple[PerInput, str]] = [
        (lambda w: w.effective_ranks, ".1f"),
        (lambda w: w.stable_ranks, ".1f"),
        (lambda w: w.kept_ranks[40], ".1f"),
        (lambda w: w.norm_shares, ".0%"),
        (pruned_share, ".0%"),
        (pruned_share_unrenormalized, ".0%"),
    ]
    columns = [[f"{norm:.3g}" for norm in total_norms(inspection)]]
    columns.append([str(count) for count in weights_changed(inspection)])
    for value, form in means_and_formats:
        means = mean_over_weights(inspection, value)
        columns.append(["" if np.isnan(mean) else format(mean, form) for mean in means])
    return list(zip(short_names(inspection.inputs), *columns, strict=True))


def _facts(inspection: Inspection) -> str:
    kind = "LoRA adapters" if inspection.lora else "models"
    facts = [
        f"{kind} on {inspection.base}: {', '.join(short_names(inspection.inputs))}",
        f"{len(inspection.weights)} matrices changed",
        f"{len(inspection.others)} vectors and embeddings changed",
        f"{len(inspection.unchanged)} tensors unchanged",
    ]
    not_comparable = [each for each in inspection.left_out if each.why]
    if not_selected := len(inspection.left_out) - len(not_comparable):
        facts.append(f"{not_selected} tensors not selected")
    if not_comparable:
        listed = ", ".join(f"{each.name} ({each.why})" for each in not_comparable[:LISTED])
        more = len(not_comparable) - LISTED
        facts.append(f"not inspected: {listed}" + (f" and {more} more" if more > 0 else ""))
    return "; ".join(facts) + "."
