"""The folder that the merged model goes to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mergekit.common import ModelReference

from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.recipe.findings import Findings


def check_out(out: Path, models: Mapping[ModelReference, CheckedModel], findings: Findings) -> None:
    """Check that a folder can be written to, and that no model of the recipe is in it.

    Args:
        out: as given; it need not be there.
        models: of the recipe.
        findings: gets what is wrong.
    """
    folder = existing(out)
    if not folder.is_dir():
        findings.error(f"--out {out} cannot be written: {folder} is a file; name a folder.")
    elif not os.access(folder, os.W_OK):
        findings.error(
            f"--out {out} cannot be written: {folder} is read-only; name another folder."
        )
    if out == Path():  # as if it were not given
        return
    for reference, model in models.items():
        folders = {file.parent.resolve() for file in model.files}
        if out.resolve() in folders | {model.checkpoint.folder.resolve()}:
            findings.warning(
                f"--out {out} is the folder of {reference}, which the merge overwrites; name "
                "another folder."
            )


def existing(folder: Path) -> Path:
    """Return a path, or the closest one above it that is there."""
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.exists())
