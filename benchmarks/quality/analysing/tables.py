"""The tables of the command `analyse`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

import click

from benchmarks.quality.analysing.analyses import Analyses
from benchmarks.quality.analysing.matrices import AGREEMENT_AT, PRUNED_TO, SPACES, MatrixAnalysis
from benchmarks.quality.analysing.sign_agreement import SignAgreement
from benchmarks.quality.merging.variants import COMPARISONS
from benchmarks.quality.reporting.aggregation import by_size, missing_merges
from benchmarks.quality.reporting.outcomes import SETTINGS
from benchmarks.quality.reporting.tables import AT, NONE, TITLES, cell, measured_on_lines
from benchmarks.quality.training.settings import Kind
from mergekit_spectral.command_line.tables import print_table


def print_analyses(analyses: Analyses) -> None:
    """Print all tables, what they were measured on, and what is missing."""
    for kind in analyses.planned.kinds:
        if any(merge.kind == kind for merge in analyses.merges):
            _print_variants(analyses, kind)
        matrices = [matrix for matrix in analyses.matrices if matrix.kind == kind]
        if matrices:
            _print_pruned_rows(matrices, kind)
            _print_agreement(matrices, kind)
            _print_ranks(matrices, kind)
    for line in (
        *measured_on_lines(analyses.measured_on),
        *missing_merges(analyses.planned, analyses.merges),
    ):
        click.echo(line)


def short_name(weight: str) -> str:
    """Return a weight's layer and projection, as in «0 q_proj»."""
    layer, projection = re.findall(r"layers\.(\d+)\..*?(\w+)\.weight", weight)[0]
    return f"{layer} {projection}"


def _print_variants(analyses: Analyses, kind: Kind) -> None:
    merges = [merge for merge in analyses.merges if merge.kind == kind]
    sizes = sorted({len(merge.tasks) for merge in merges})
    found = {setting: by_size(merges, setting) for setting in SETTINGS}
    print_table(
        f"Variants of the methods on {TITLES[kind]}",
        (
            "what varies",
            "method",
            *(f"{size}, {setting}" for size in sizes for setting in SETTINGS),
        ),
        [
            (
                what,
                method,
                *(
                    cell(found[setting].get((kind, method, size)))
                    for size in sizes
                    for setting in SETTINGS
                ),
            )
            for what, methods in COMPARISONS.items()
            for method in methods
        ],
        words=("what varies", "method"),
        notes=(
            "Normalized accuracy in %, by number of tasks, "
            f"{' and '.join(AT[setting] for setting in SETTINGS)}: mean ± standard deviation over "
            "subsets.",
        ),
    )


def _print_pruned_rows(matrices: Sequence[MatrixAnalysis], kind: Kind) -> None:
    print_table(
        f"Rows of {TITLES[kind]} pruned to density {PRUNED_TO:g}",
        (
            "weight",
            "inputs",
            "directions",
            *(
                f"{way}: {what}"
                for way in ("renormalized", "not")
                for what in ("pruned", "rows gone")
            ),
        ),
        [
            (
                short_name(matrix.weight),
                str(matrix.inputs),
                str(matrix.directions),
                *(
                    text
                    for rows in (matrix.renormalized, matrix.unrenormalized)
                    for text in (
                        f"{100 * rows.mean:.1f} ± {100 * rows.spread:.1f}",
                        f"{100 * rows.whole:.1f}",
                    )
                ),
            )
            for matrix in matrices
        ],
        words=("weight",),
        notes=(
            "Pruned: share of a row's entries in %, mean ± standard deviation over rows of all "
            "inputs. Rows gone: share of the rows of which nothing is left, in %.",
        ),
    )


def _print_agreement(matrices: Sequence[MatrixAnalysis], kind: Kind) -> None:
    print_table(
        f"Agreement in sign of {TITLES[kind]}, pruned to density {AGREEMENT_AT:g}",
        ("weight", *SPACES),
        [
            (short_name(matrix.weight), *(_agreement(matrix.agreement[space]) for space in SPACES))
            for matrix in matrices
        ],
        words=("weight",),
        notes=(
            "Share of the inputs that have the sign of the majority, in %: mean over the places "
            "where any input is not zero / where two or more are not (share of the places where "
            "one alone is not).",
        ),
    )


def _agreement(agreement: SignAgreement) -> str:
    shared = NONE if agreement.shared_mean is None else f"{100 * agreement.shared_mean:.1f}"
    return f"{100 * agreement.mean:.1f} / {shared} ({100 * agreement.single:.0f})"


def _print_ranks(matrices: Sequence[MatrixAnalysis], kind: Kind) -> None:
    print_table(
        f"Effective ranks of the updates of {TITLES[kind]}",
        ("weight", "mean", "smallest", "largest", "of all side by side"),
        [
            (
                short_name(matrix.weight),
                *(f"{of(matrix.effective_ranks):.1f}" for of in (fmean, min, max)),
                f"{matrix.joint_effective_rank:.1f}",
            )
            for matrix in matrices
        ],
        words=("weight",),
    )
