"""What a check found, as an object, in words, and as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from mergekit_spectral.checking.estimate import Costs, gigabytes
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.recipe.findings import Finding, find_errors


@dataclass(frozen=True, repr=False)
class Report:
    """What a check found. As text and in a notebook it is the lines that the command prints.

    Attributes:
        recipe: the recipe's file; ``recipe`` for one that is not in a file.
        findings: in the order of their lines, those about the whole recipe last.
        method: the name of the merge method, if the recipe can be read.
        costs: what the merge takes; None if that is not known.
        unchecked: what the later stages wait for, if they were not run; else None.
        downloads: by model, the bytes that the merge would download; None if the Hub was not asked.
        plan: mergekit's, if the costs are known.
    """

    recipe: Path
    findings: tuple[Finding, ...]
    method: str | None = None
    costs: Costs | None = None
    unchecked: str | None = None
    downloads: dict[str, int] | None = None
    plan: PlannedMerge | None = field(default=None, compare=False)

    @property
    def errors(self) -> list[Finding]:
        """Why the merge would fail."""
        return find_errors(self.findings)

    @property
    def failed(self) -> bool:
        """Whether the merge would fail."""
        return bool(self.errors)

    def __repr__(self) -> str:
        findings = (finding.in_words(self.recipe) for finding in self.findings)
        costs = (f"{self.recipe}: {line}" for line in self.costs_in_words())
        return "\n".join([*findings, *costs, f"{self.recipe}: {self.verdict()}"])

    def _repr_html_(self) -> str:
        """Return a table of the findings, what the merge takes, and the verdict."""
        rows = "".join(
            f"<tr><td>{finding.line or ''}</td><td>{finding.severity}</td>"
            f'<td style="text-align: left">{escape(finding.message)}'
            + (f"<pre>{escape(finding.cure)}</pre>" if finding.cure else "")
            + "</td></tr>"
            for finding in self.findings
        )
        header = "<tr><th>line</th><th></th><th></th></tr>"
        table = f"<table>{header}{rows}</table>" if rows else ""
        costs = "".join(f"<li>{escape(line)}</li>" for line in self.costs_in_words())
        listed = f"<ul>{costs}</ul>" if costs else ""
        return f"<p><b>{escape(f'{self.recipe}: {self.verdict()}')}</b></p>{table}{listed}"

    def costs_in_words(self) -> Iterator[str]:
        """Yield sentences about what the merge takes, as far as it is known."""
        if self.costs is not None:
            yield from _costs(self.method, self.costs)
        if self.downloads is not None:
            yield _downloads(self.downloads)

    def verdict(self) -> str:
        """Return whether the merge would run, in a few words."""
        if self.failed:
            return "fails."
        if self.unchecked is None:
            return "runs."
        until = self.unchecked
        if self.downloads is None:
            until += ", or with --hub"
        return f"no errors so far; tensors and sizes are not checked {until}."


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _costs(method: str | None, costs: Costs) -> Iterator[str]:
    yield (
        f"{method}, {costs.parameters / 1e6:,.1f} million parameters in {costs.tensors} tensors, "
        f"{costs.decompositions} decompositions; about {duration(costs.seconds)} on this machine "
        "when it is idle."
    )
    yield (
        f"reads {gigabytes(costs.input_bytes)}, writes {gigabytes(costs.output_bytes)}; the disk "
        f"has {gigabytes(costs.free_bytes)} free."
    )
    if costs.copy_bytes:
        yield f"merged copies take another {gigabytes(costs.copy_bytes)} of disk."
    memory = costs.memory
    device = f", and {gigabytes(memory.device)} of device memory" if memory.device else ""
    yield (
        f"takes up to {gigabytes(memory.host)} of memory, of which {gigabytes(memory.mapped)} are "
        f"pages of the inputs' files that the system can free when needed{device}."
    )


def _downloads(downloads: dict[str, int]) -> str:
    if not downloads:
        return "downloads nothing; all models are on this machine."
    each = ", ".join(f"{gigabytes(size)} for {model}" for model, size in downloads.items())
    return f"downloads {gigabytes(sum(downloads.values()))}: {each}."
