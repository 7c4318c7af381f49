"""Run ``mergekit-spectral methods``: print tables, or JSON, from the methods' specs."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from mergekit.merge_methods import registered_methods

from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.description import (
    PARAMETER_COLUMNS,
    MethodDescription,
    default_text,
    parameter_rows,
)
from mergekit_spectral.recipe.findings import suggest_name


def print_all(as_json: bool) -> None:
    """Print all methods that a recipe can name, ours first."""
    known = sorted(registered_methods(), key=lambda method: not isinstance(method, SpectralMethod))
    described = [MethodDescription.of(method) for method in known]
    if as_json:
        click.echo(json.dumps([asdict(method) for method in described], indent=1))
        return
    ours = [method for method in described if method.summary]
    print_table(
        "Methods of mergekit-spectral",
        ("merge_method", "title", "what it does", "paper"),
        [(f"`{m.name}`", m.title, m.summary, m.reference or "") for m in ours],
        words=("merge_method", "title", "what it does", "paper"),
    )
    print_table(
        "Their parameters", PARAMETER_COLUMNS, parameter_rows(ours), words=PARAMETER_COLUMNS
    )
    print_table(
        "mergekit's own methods",
        ("merge_method", "title", "parameters", "paper"),
        [
            (
                f"`{m.name}`",
                m.title,
                ", ".join(parameter.name for parameter in m.parameters),
                m.reference or "",
            )
            for m in described
            if not m.summary
        ],
        words=("merge_method", "title", "parameters", "paper"),
    )


def print_one(name: str, as_json: bool) -> None:
    """Print one method's parameters.

    Raises:
        click.ClickException: there is no method of this name.
    """
    known = {method.spec.name: method for method in registered_methods()}
    if name not in known:
        raise click.ClickException(f"there is no merge method {name}; {suggest_name(name, known)}")
    method = MethodDescription.of(known[name])
    if as_json:
        click.echo(json.dumps(asdict(method), indent=1))
        return
    header = ("parameter", "scope", "valid", "default", "what it does", "source")
    print_table(
        f"{method.title} (`{method.name}`)",
        header,
        [
            (f"`{p.name}`", p.scope, p.valid, default_text(p), p.description, p.source)
            for p in method.parameters
        ],
        words=header,
        notes=(
            *([f"{method.summary}."] if method.summary else []),
            f"base_model: {method.base_model}.",
            *([f"Published in {method.reference}."] if method.reference else []),
        ),
    )
