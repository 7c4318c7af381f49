"""One page for a person to look at, with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots import Plot
from mergekit_spectral.inspecting.summary import (
    mean_over_weights,
    pruned,
    pruned_without,
    short_names,
    total_norms,
    worst_conflicts,
)
from mergekit_spectral.inspecting.takeaways import suggestions, takeaways

CONFLICTS = 8
LISTED = 5
"""Of the tensors that could not be looked at."""
HEADER = (
    "input",
    "norm",
    "effective rank",
    "stable rank",
    "rank at η = 40",
    "share of joint directions",
    "pruned",
    "pruned without renormalization",
)


def write_page(inspection: Inspection, plots: Sequence[Plot], path: Path) -> None:
    """Write the page; it needs no other file, and no network."""
    environment = Environment(
        loader=PackageLoader("mergekit_spectral.inspecting", ""),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["code"] = _code
    page = environment.get_template("page.html.jinja").render(
        title=f"{inspection.recipe}: {len(inspection.inputs)} inputs of {inspection.method}",
        facts=_facts(inspection),
        takeaways=takeaways(inspection),
        suggestions=suggestions(inspection),
        plots=[
            {
                "title": plot.title,
                "text": plot.text,
                "data": base64.b64encode(plot.path.read_bytes()).decode(),
            }
            for plot in plots
        ],
        conflicts=conflict_rows(inspection),
        header=HEADER,
        rows=input_rows(inspection),
    )
    path.write_text(page, encoding="utf-8")


def conflict_rows(inspection: Inspection) -> list[tuple[str, str, str]]:
    """Return where two inputs pull apart most: both, the weight, the cosine of their updates."""
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
    """Return a row of text for each input, as in `HEADER`: means over all weights."""
    if not inspection.weights:
        return []
    columns = (
        [f"{norm:.3g}" for norm in total_norms(inspection)],
        [f"{x:.1f}" for x in mean_over_weights(inspection, lambda w: w.effective_ranks)],
        [f"{x:.1f}" for x in mean_over_weights(inspection, lambda w: w.stable_ranks)],
        [f"{x:.1f}" for x in mean_over_weights(inspection, lambda w: w.kept_ranks[40])],
        [f"{x:.0%}" for x in mean_over_weights(inspection, lambda w: w.norm_shares)],
        [f"{x:.0%}" for x in mean_over_weights(inspection, pruned)],
        [f"{x:.0%}" for x in mean_over_weights(inspection, pruned_without)],
    )
    return list(zip(short_names(inspection.inputs), *columns, strict=True))


def _code(text: str) -> Markup:
    """Turn what stands in backticks into code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def _facts(inspection: Inspection) -> str:
    kind = "LoRA adapters" if inspection.lora else "models"
    names = [name.rpartition("+")[2] for name in inspection.inputs]
    facts = [
        f"{kind} on {inspection.base}: {', '.join(names)}",
        f"{len(inspection.weights)} matrices changed",
        f"{len(inspection.others)} vectors and embeddings changed",
        f"{len(inspection.unchanged)} tensors unchanged",
    ]
    wanted = [each for each in inspection.left_out if each.why]
    if others := len(inspection.left_out) - len(wanted):
        facts.append(f"{others} tensors not asked for")
    if wanted:
        told = ", ".join(f"{each.name} ({each.why})" for each in wanted[:LISTED])
        more = f" and {len(wanted) - LISTED} more" if len(wanted) > LISTED else ""
        facts.append(f"not looked at: {told}{more}")
    return "; ".join(facts) + "."
