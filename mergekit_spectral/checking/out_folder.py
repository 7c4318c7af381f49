"""Check that the merged model's folder can be written to, and holds no model or adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mergekit_spectral.adapters.adapter_files import CONFIG_NAME
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.recipe.findings import Finding, error, warning


def check_out_folder(subject: Subject) -> Iterator[Finding]:
    """Check that the folder can be written to, and that no model or adapter is in it."""
    out = subject.out
    folder = closest_existing(out)
    if not folder.is_dir():
        yield error(f"--out {out} cannot be written: {folder} is a file; name a folder.")
    elif not os.access(folder, os.W_OK):
        yield error(f"--out {out} cannot be written: {folder} is read-only; name another folder.")
    if out == Path():  # the command's default
        return
    for reference, model in subject.models.items():
        folders = {file.parent.resolve() for file in model.files}
        if out.resolve() in folders | {model.checkpoint.folder.resolve()}:
            yield warning(
                f"--out {out} is the folder of {reference}, which the merge overwrites; name "
                "another folder."
            )
    if (out / CONFIG_NAME).is_file():
        yield warning(
            f"--out {out} has an adapter ({CONFIG_NAME}), which transformers adds to the model in "
            "the same folder when it loads that; name another folder, or remove the adapter."
        )


def closest_existing(folder: Path) -> Path:
    """Return a path if it exists, or else the closest folder above it that does."""
    folder = folder.resolve()
    return next(path for path in (folder, *folder.parents) if path.exists())
