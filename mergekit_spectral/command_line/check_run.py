"""Run ``mergekit-spectral check``: check a recipe, and print findings and costs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from huggingface_hub.utils import disable_progress_bars
from mergekit.options import MergeOptions

from mergekit_spectral.checking.checks import check
from mergekit_spectral.checking.estimate import gigabytes
from mergekit_spectral.checking.report import Report, duration
from mergekit_spectral.command_line.command import is_quiet, progress_console
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.recipe.findings import Severity
from mergekit_spectral.recipe.text import dotted
from mergekit_spectral.scaling import RunCosts, estimate_run, with_defaults

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
    if workers is not None:
        options = with_defaults(options, out)
    with progress_console().status("Reading headers on the Hub") if hub else nullcontext():
        report = check(recipe, out, options, hub=hub)
    run = None
    if workers and report.costs and report.plan:
        run = estimate_run(report.plan, report.costs, workers)
    if as_json:
        click.echo(json.dumps(_as_json(report, run), indent=1))
    else:
        _print(report, run)
    return report.failed


def _as_json(report: Report, run: RunCosts | None) -> dict[str, Any]:
    findings = [{**asdict(each), "key": dotted(each.key)} for each in report.findings]
    found = asdict(replace(report, plan=None))
    del found["plan"], found["recipe"]
    of_run = {} if run is None else {"run": asdict(run)}
    return {"runs": not report.failed, **found, "findings": findings, **of_run}


def _print(report: Report, run: RunCosts | None) -> None:
    recipe = report.recipe
    for finding in report.findings:
        if is_quiet() and finding.severity != "error":
            continue
        label = click.style(finding.severity, fg=COLORS[finding.severity], bold=True)
        click.echo(finding.in_words(recipe, label))
    if is_quiet():
        return
    for line in report.costs_in_words():
        click.echo(f"{recipe}: {line}")
    if run is not None:
        click.echo(f"{recipe}: {_run(run)}")
    click.echo(f"{recipe}: {report.verdict()}")


def _run(run: RunCosts) -> str:
    of_each = "" if run.workers == 1 else f", {gigabytes(run.worker_bytes)} for each worker"
    return (
        f"`run` with {run.workers} worker{'s' * (run.workers > 1)} takes about "
        f"{duration(run.seconds)}, up to {gigabytes(run.memory_bytes)} of memory{of_each}, without "
        f"pages of the inputs' files, and up to {gigabytes(run.disk_bytes)} of disk."
    )
