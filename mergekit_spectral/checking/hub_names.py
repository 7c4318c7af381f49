"""Local folders whose names mergekit's model card takes for names on the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mergekit.common import ModelReference

from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.text import Key


def check_hub_names(named: Mapping[ModelReference, Key], findings: Findings) -> None:
    """Warn of folders named ``name`` or ``org/name`` in a recipe of one of mergekit's own methods.

    For our methods the card does not ask the hub; see `local_names`.

    Args:
        named: where each model of the recipe is named.
        findings: gets what is wrong.
    """
    for reference, key in named.items():
        paths = [part.path for part in (reference.model, reference.lora) if part]
        for path in filter(_is_looked_up, paths):
            findings.warning(
                f"mergekit's model card asks the hub for a model named {path}, although it is a "
                "local folder; without a network the merge then fails after the weights are "
                f"written, and leaves no tokenizer. Write ./{path}, or give --no-write-model-card.",
                key,
            )


def _is_looked_up(path: str) -> bool:
    return path[0] not in "/~." and path.count("/") <= 1 and os.path.exists(path)
