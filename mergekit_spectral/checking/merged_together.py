"""Check how many models a method merges with one another, each of them once."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit.merge_methods.base import BasePolicy

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.errors import first_line
from mergekit_spectral.recipe.findings import Finding, error


def check_merged_together(subject: Subject) -> Iterator[Finding]:
    """Check each list of models that are merged with one another against the method's contract."""
    if subject.method is None:
        return
    spec = subject.method.spec
    for group in subject.recipe.groups:
        models, base = group.models, group.base_model
        repeated = [n for n, model in enumerate(models) if model in models[:n]]
        for number in repeated:
            yield error(
                f"{models[number]} is listed twice among the models to merge; list it once, with "
                "the sum of its weights.",
                (*group.key, number, "model"),
            )
        if repeated or (base is None and spec.contract.base == BasePolicy.REQUIRED):
            continue
        # mergekit's planner adds the base to a list of models, but not to the sources of a slice.
        added = base is not None and base not in models and not group.is_slice
        try:
            spec.contract.validate_ids([*models, base] if added else models, base)
        except ValueError as refusal:
            yield error(
                f"{spec.name} cannot merge {len(models)} model{'s' * (len(models) > 1)}"
                f"{' and the base' if added else ''}: {first_line(refusal)}.",
                group.key,
            )
