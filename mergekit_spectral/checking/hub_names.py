"""Check for local folders that mergekit's model card would take for models of the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.recipe.findings import Finding, warning


def check_hub_names(subject: Subject) -> Iterator[Finding]:
    """Warn of folders named ``name`` or ``org/name`` in a recipe of one of mergekit's own methods.

    For our methods the card does not ask the Hub; see `cards_that_others_can_use`.
    """
    if not subject.options.write_model_card or isinstance(subject.method, SpectralMethod):
        return
    for reference, key in subject.recipe.references.items():
        paths = [part.path for part in (reference.model, reference.lora) if part]
        for path in filter(_is_looked_up, paths):
            yield warning(
                f"mergekit's model card asks the Hub for a model named {path}, although it is a "
                "local folder; without a network the merge then fails after the weights are "
                f"written, and leaves no tokenizer. Write ./{path}, or give --no-write-model-card.",
                key,
            )


def _is_looked_up(path: str) -> bool:
    return path[0] not in "/~." and path.count("/") <= 1 and os.path.exists(path)
