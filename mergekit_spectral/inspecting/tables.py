"""The tables of an inspection: the inputs, and the pairs that conflict most."""

from __future__ import annotations

import numpy as np

from mergekit_spectral.inspecting.inspection import Inspection
from mergekit_spectral.inspecting.summary import (
    PerInput,
    mean_over_weights,
    pruned_share,
    pruned_share_unrenormalized,
    total_norms,
    weights_changed,
    worst_conflicts,
)
from mergekit_spectral.reporting.names import short_names

CONFLICTS = 8
"""Maximum number of conflicting pairs in the table."""
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
