"""Write a cache of the Hugging Face Hub's client."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path


def store(cache: Path, repository: str, revision: str, folder: Path) -> str:
    """Copy the files of `folder` into a cache, as `revision` of `repository`; return the commit."""
    commit = hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()
    place = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / commit)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / revision).write_text(commit)
    return commit
