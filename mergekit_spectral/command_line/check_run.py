"""Run ``mergekit-spectral check``: check a recipe, and print findings and costs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from huggingface_hub.utils import disable_progress_bars
from mergekit.options import MergeOptions

from mergekit_spectral.checking.checks import Report, check
from mergekit_spectral.checking.estimate import Costs, gigabytes
from mergekit_spectral.command_line.command import is_quiet, progress_console
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.recipe.findings import Severity
from mergekit_spectral.recipe.text import dotted
from mergekit_spectral.scaling import RunCosts, estimate_run

COLORS: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "blue"}


def check_and_print(
    recipe: Path,
    out: Path,
    *,
    lora_merge_cache: str | None,
    allow_crimes: bool,
    trust_remote_code: bool,
    device: str,
    workers: int | None,
    hub: bool,
    as_json: bool,
) -> bool:
    """Check a recipe, print what is found, and return whether the merge would fail."""
    silence_transformers()
    disable_progress_bars()
    options = MergeOptions(
        lora_merge_cache=lora_merge_cache,
        allow_crimes=allow_crimes,
        trust_remote_code=trust_remote_code,
        device=device,
    )
    try:
        with progress_console().status("Reading headers on the Hub") if hub else nullcontext():
            report = check(recipe, options, out, hub)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else first_line(error)
        raise MergeError(f"The check cannot read {what}.") from error
    run = None
    if workers and report.costs and report.plan:
        run = estimate_run(report.plan, report.costs, workers)
    if as_json:
        click.echo(json.dumps(_as_json(report, run), indent=1))
    else:
        _print(recipe, report, run)
    return report.failed


def _as_json(report: Report, run: RunCosts | None) -> dict[str, Any]:
    findings = [{**asdict(each), "key": dotted(each.key)} for each in report.findings]
    found = asdict(replace(report, plan=None))
    del found["plan"]
    of_run = {} if run is None else {"run": asdict(run)}
    return {"runs": not report.failed, **found, "findings": findings, **of_run}


def _print(recipe: Path, report: Report, run: RunCosts | None) -> None:
    for finding in report.findings:
        if is_quiet() and finding.severity != "error":
            continue
        label = click.style(finding.severity, fg=COLORS[finding.severity], bold=True)
        click.echo(f"{finding.place(recipe)}: {label}: {finding.message}")
        if finding.cure:
            click.echo(textwrap.indent(finding.cure, "    "))
    if is_quiet():
        return
    if report.costs:
        for line in _costs(report.method, report.costs):
            click.echo(f"{recipe}: {line}")
    if run is not None:
        click.echo(f"{recipe}: {_run(run)}")
    if report.downloads is not None:
        click.echo(f"{recipe}: {_downloads(report.downloads)}")
    if report.failed:
        click.echo(f"{recipe}: fails.")
    elif report.unchecked:
        until = report.unchecked
        if report.downloads is None:
            until += ", or with --hub"
        click.echo(f"{recipe}: no errors so far; tensors and sizes are not checked {until}.")
    else:
        click.echo(f"{recipe}: runs.")


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


def _run(run: RunCosts) -> str:
    of_each = "" if run.workers == 1 else f", {gigabytes(run.worker_bytes)} for each worker"
    return (
        f"`run` with {run.workers} worker{'s' * (run.workers > 1)} takes about "
        f"{duration(run.seconds)}, up to {gigabytes(run.memory_bytes)} of memory{of_each}, without "
        f"pages of the inputs' files, and up to {gigabytes(run.disk_bytes)} of disk."
    )


def _downloads(downloads: dict[str, int]) -> str:
    if not downloads:
        return "downloads nothing; all models are on this machine."
    each = ", ".join(f"{gigabytes(size)} for {model}" for model, size in downloads.items())
    return f"downloads {gigabytes(sum(downloads.values()))}: {each}."


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
