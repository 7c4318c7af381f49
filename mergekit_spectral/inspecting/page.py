"""Write the report of an inspection as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots import DECIDING
from mergekit_spectral.inspecting.suggestions import suggestions
from mergekit_spectral.inspecting.tables import HEADER, conflict_rows, input_rows
from mergekit_spectral.inspecting.takeaways import takeaways
from mergekit_spectral.inspecting.verdict import Verdict
from mergekit_spectral.reporting.names import short_names
from mergekit_spectral.reporting.page import embedded, fill_template
from mergekit_spectral.reporting.plots import Plot

LISTED = 5
"""Maximum number of tensors that are listed as not inspected."""


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
