"""Check which LoRA inputs mergekit would merge into copies of their bases before the merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mergekit.common import ModelReference

from mergekit_spectral.checking.cures import merge_through_copies
from mergekit_spectral.checking.estimate import gigabytes
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.models import copied_inputs, whole_inputs
from mergekit_spectral.recipe.findings import Finding, error, note


def check_copies(subject: Subject) -> Iterator[Finding]:
    """Check that there is a folder for the copies that a merge makes."""
    bases = subject.recipe.base_models
    copied = copied_inputs(subject.method, subject.models, bases)
    yield from _check(subject, copied, "; `mergekit-spectral run` needs none")


def check_inputs_in_factors(subject: Subject) -> Iterator[Finding]:
    """Check that there is a folder for copies of inputs that cannot be read in factors."""
    yield from _check(subject, whole_inputs(subject.models, subject.recipe.base_models))


def _check(
    subject: Subject, copied: Sequence[ModelReference], otherwise: str = ""
) -> Iterator[Finding]:
    for reference in copied:
        key = subject.recipe.references[reference]
        size = gigabytes(subject.models[reference].copy_bytes(subject.options))
        message = f"mergekit merges {reference} into a copy of its base first, of {size}"
        if subject.options.lora_merge_cache is None:
            yield error(
                f"{message}, and needs --lora-merge-cache FOLDER for it, also for this command"
                f"{otherwise}.",
                key,
                cure=merge_through_copies(subject),
            )
        else:
            yield note(f"{message}, in {subject.options.lora_merge_cache}.", key)
