"""Check that no input is the base, or another input, under another name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mergekit.common import ModelReference

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.hub import HubModels
from mergekit_spectral.recipe.findings import Finding, warning

SAMPLE_BYTES = 512
SAMPLES = 1 << 13


def check_duplicates(subject: Subject) -> Iterator[Finding]:
    """Warn of inputs whose files are those of the base or of another input.

    Files of one size are compared at `SAMPLES` places evenly apart, and whole if they are small.
    Files whose values are on the Hub alone are not compared.
    """
    models, named = subject.models, subject.recipe.references
    bases = subject.recipe.base_models
    seen: dict[ModelReference, tuple[Path, ...]] = {}
    # The base first, so that the input is named and not the base.
    for reference in sorted(models, key=lambda reference: reference not in bases):
        files = models[reference].files
        twin = next(
            (other for other, own in seen.items() if _are_equal(files, own, subject.hub)), None
        )
        if twin is None:
            seen[reference] = files
        elif twin in bases:
            yield warning(
                f"{reference} seems to have the same weights as the base model {twin}, so it adds "
                "nothing to the merge.",
                named[reference],
            )
        else:
            yield warning(
                f"{reference} seems to have the same weights as {twin}, so these count twice.",
                named[reference],
            )


def _are_equal(some: tuple[Path, ...], others: tuple[Path, ...], hub: HubModels) -> bool:
    return len(some) == len(others) and all(
        _have_equal_bytes(one, other, hub) for one, other in zip(some, others, strict=True)
    )


def _have_equal_bytes(one: Path, other: Path, hub: HubModels) -> bool:
    if one.resolve() == other.resolve():
        return True
    if not (hub.has_values(one) and hub.has_values(other)):
        return False
    size = one.stat().st_size
    if size != other.stat().st_size:
        return False
    step = max(SAMPLE_BYTES, size // SAMPLES)
    with one.open("rb") as first, other.open("rb") as second:
        for start in (*range(0, size, step), max(0, size - SAMPLE_BYTES)):
            first.seek(start)
            second.seek(start)
            if first.read(SAMPLE_BYTES) != second.read(SAMPLE_BYTES):
                return False
    return True
