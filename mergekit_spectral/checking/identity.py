"""Inputs that are the base, or one another, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mergekit.common import ModelReference

from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.text import Key

SAMPLE = 512
SAMPLES = 1 << 13


def check_identity(
    models: Mapping[ModelReference, CheckedModel],
    bases: set[ModelReference],
    keys: Mapping[ModelReference, Key],
    findings: Findings,
) -> None:
    """Warn of inputs whose files are those of the base or of another input.

    Files of one size are compared at `SAMPLES` places evenly apart, and whole if they are small.
    """
    seen: dict[ModelReference, tuple[Path, ...]] = {}
    # The base first, so that it is the input that is named.
    for reference in sorted(models, key=lambda reference: reference not in bases):
        files = models[reference].files
        twin = next((other for other, own in seen.items() if _alike(files, own)), None)
        if twin is None:
            seen[reference] = files
        elif twin in bases:
            findings.warning(
                f"{reference} seems to have the same weights as the base model {twin}, so it adds "
                "nothing to the merge.",
                keys[reference],
            )
        else:
            findings.warning(
                f"{reference} seems to have the same weights as {twin}, so these count twice.",
                keys[reference],
            )


def _alike(some: tuple[Path, ...], others: tuple[Path, ...]) -> bool:
    return len(some) == len(others) and all(map(_same, some, others))


def _same(one: Path, other: Path) -> bool:
    if one.resolve() == other.resolve():
        return True
    size = one.stat().st_size
    if size != other.stat().st_size:
        return False
    step = max(SAMPLE, size // SAMPLES)
    with one.open("rb") as first, other.open("rb") as second:
        for start in (*range(0, size, step), max(0, size - SAMPLE)):
            first.seek(start)
            second.seek(start)
            if first.read(SAMPLE) != second.read(SAMPLE):
                return False
    return True
