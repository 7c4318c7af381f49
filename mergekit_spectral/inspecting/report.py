"""Inspect a recipe's inputs: measure them, decide what to do, and write the report's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from mergekit.options import MergeOptions

from mergekit_spectral.errors import MergeError, needs_extra
from mergekit_spectral.host.checkpoints import without_hub
from mergekit_spectral.inspecting.inspection import RECORD, Inspection, Progress, measure
from mergekit_spectral.inspecting.recipe_text import change_recipe
from mergekit_spectral.inspecting.suggestions import Suggestion, suggestions
from mergekit_spectral.inspecting.tables import HEADER, input_rows
from mergekit_spectral.inspecting.takeaways import takeaways
from mergekit_spectral.inspecting.verdict import Verdict, decide
from mergekit_spectral.recipe.reading import RecipeLike
from mergekit_spectral.reporting import extra
from mergekit_spectral.whole_files import errors_as_sentences, move_up, require_own, unfinished

PAGE = "index.html"
REPORT = "report.json"
RECIPE = "recommended.yml"


@dataclass(frozen=True, repr=False)
class InspectionReport:
    """What an inspection found. As text and in a notebook it is the verdict and its reasons.

    Attributes:
        verdict: which inputs to merge, with which method and parameters, and why.
        recipe: text of the recommended recipe; None if there is nothing to merge.
        inspection: the measurements of the inputs' updates.
        takeaways: what is worth knowing about the inputs, a sentence or two each.
        suggestions: methods and parameters to try, by what was measured with other models.
    """

    verdict: Verdict
    recipe: str | None
    inspection: Inspection
    takeaways: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what ``report.json`` holds, in Python's mappings, lists and scalars."""
        return {
            "verdict": asdict(self.verdict),
            **asdict(self.inspection),
            "takeaways": list(self.takeaways),
            "suggestions": [asdict(suggestion) for suggestion in self.suggestions],
        }

    def __repr__(self) -> str:
        answers = (f"- {one.question}: {one.answer}. {one.reason}" for one in self.verdict.answers)
        return "\n".join([self.verdict.headline, *answers])

    def _repr_html_(self) -> str:
        """Return the verdict, its reasons, the recommended recipe and a table of the inputs."""
        answers = "".join(
            f"<li>{escape(one.question)}: <b>{_html(one.answer)}</b>. {_html(one.reason)}</li>"
            for one in self.verdict.answers
        )
        recipe = f"<pre>{escape(self.recipe)}</pre>" if self.recipe else ""
        rows = input_rows(self.inspection)
        table = "".join([_row("th", HEADER), *(_row("td", row) for row in rows)])
        headline = f"<p><b>{_html(self.verdict.headline)}</b></p>"
        return f"{headline}<ul>{answers}</ul>{recipe}<table>{table}</table>"


def inspect(
    recipe: RecipeLike,
    out: str | Path | None = None,
    options: MergeOptions | None = None,
    *,
    tensors: str | None = None,
    sample: int | None = None,
    progress: Progress | None = None,
) -> InspectionReport:
    """Decide from the inputs of a recipe which to merge, with which method and parameters.

    Nothing is merged, and models are read from this machine only.

    Args:
        recipe: the recipe, with a base model: the path of its file, its text, its values as a
            mapping, or mergekit's `MergeConfiguration`.
        out: folder for the report: ``index.html``, one page with all plots; ``report.json``;
            ``recommended.yml``; and the plots. It needs the extra ``report``. A stopped inspection
            continues there. By default nothing is written.
        options: mergekit's options, of which those count that decide which models can be read.
        tensors: glob that the names of the tensors must match, such as ``*.mlp.*``.
        sample: number of weights of each kind to inspect, evenly over the layers; by default all.
        progress: called with the number of finished tensors and the number of all tensors.

    Returns:
        The verdict, the recommended recipe, and the measurements behind them.

    Raises:
        MergeError: the recipe has an error or no base model, a model is not on this machine, no
            tensor can be inspected, an update is out of range, the extra is missing, or the folder
            has other files of the report's names or cannot be written to.
    """
    folder = None if out is None else Path(out)
    if folder is not None:
        if not extra.is_installed():
            raise MergeError(needs_extra("inspect", "report"))
        require_own(folder, tuple(_names()), RECORD, "an earlier inspection")
    with without_hub():
        text, inspection = measure(
            recipe,
            folder,
            options or MergeOptions(),
            pattern=tensors,
            sample=sample,
            progress=progress or (lambda done, total: None),
        )
    verdict = decide(inspection)
    report = InspectionReport(
        verdict,
        None if verdict.changes is None else change_recipe(text, verdict.changes),
        inspection,
        tuple(takeaways(inspection)),
        tuple(suggestions(inspection)),
    )
    if folder is not None:
        _write(report, folder)
    return report


def _names() -> Iterator[str]:
    """Yield the names of all files of a report."""
    from mergekit_spectral.inspecting.plots import NAMES

    yield from (PAGE, REPORT, RECIPE, *(f"{name}.png" for name in NAMES))


def _write(report: InspectionReport, out: Path) -> None:
    # matplotlib and jinja2 are an extra.
    from mergekit_spectral.inspecting.page import write_page
    from mergekit_spectral.inspecting.plots import draw_inspection

    with errors_as_sentences(out), unfinished(out) as new:
        plots = draw_inspection(report.inspection)
        for plot in plots:
            (new / f"{plot.name}.png").write_bytes(plot.light)
        (new / REPORT).write_text(json.dumps(report.as_json(), indent=1) + "\n")
        write_page(report.inspection, report.verdict, report.recipe, plots, new / PAGE)
        if report.recipe:
            (new / RECIPE).write_text(report.recipe, encoding="utf-8")
        written = [name for name in _names() if (new / name).exists()]
        for name in set(_names()).difference(written):
            (out / name).unlink(missing_ok=True)
        # The page is moved last, so that the report is complete once the page is there.
        move_up(new, sorted(written, key=PAGE.__eq__))


def _html(text: str) -> str:
    """Return a sentence, whose code is between backticks in Markdown, as HTML."""
    parts = [escape(part) for part in text.split("`")]
    return "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))


def _row(tag: str, cells: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
