"""One page for a person to look at, with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.plots import Plot
from mergekit_spectral.inspecting.suggestions import suggestions
from mergekit_spectral.inspecting.summary import (
    PerInput,
    mean_over_weights,
    pruned,
    pruned_without,
    short_names,
    total_norms,
    weights_changed,
    worst_conflicts,
)
from mergekit_spectral.inspecting.takeaways import takeaways

CONFLICTS = 8
LISTED = 5
"""Of the tensors that could not be looked at."""
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
    """Return a row of text for each input, as in `HEADER`: means over what it changes."""
    if not inspection.weights:
        return []
    ways: list[tuple[PerInput, str]] = [
        (lambda w: w.effective_ranks, ".1f"),
        (lambda w: w.stable_ranks, ".1f"),
        (lambda w: w.kept_ranks[40], ".1f"),
        (lambda w: w.norm_shares, ".0%"),
        (pruned, ".0%"),
        (pruned_without, ".0%"),
    ]
    columns = [[f"{norm:.3g}" for norm in total_norms(inspection)]]
    columns.append([str(count) for count in weights_changed(inspection)])
    for value, form in ways:
        means = mean_over_weights(inspection, value)
        columns.append(["" if np.isnan(mean) else format(mean, form) for mean in means])
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
    facts = [
        f"{kind} on {inspection.base}: {', '.join(short_names(inspection.inputs))}",
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
