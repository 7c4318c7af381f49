"""Files that appear whole or not at all, whatever ends the program that writes them."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from mergekit_spectral.errors import MergeError, first_line

_HERE = -100
"""AT_FDCWD: paths count from the working directory."""
_EXCHANGE = 2
"""RENAME_EXCHANGE."""


@contextmanager
def errors_as_sentences(folder: Path) -> Iterator[None]:
    """Turn errors of the file system into a `MergeError` within this context.

    Args:
        folder: where files are written, for the message.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise MergeError(
            f"{folder} cannot be written to ({reason}); name another folder, free space on the "
            "disk, or change the folder's permissions."
        ) from error


def require_writable(folder: Path) -> None:
    """Check that a file can be made in a folder, or where the folder would be made.

    Raises:
        MergeError: it cannot be.
    """
    with errors_as_sentences(folder):
        path = Path(os.path.realpath(folder))
        existing = next(place for place in (path, *path.parents) if place.exists())
        # Only an attempt to write detects read-only file systems and the rights of root.
        tempfile.TemporaryFile(dir=existing).close()


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Give an empty folder inside of `folder` for files that are to be moved up when all are there.

    It is removed at the end; after an error so are the folders that had to be made.

    Args:
        folder: made if missing, with its parents.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as inside:
            yield Path(inside)
    except BaseException:
        for place in made:
            with suppress(OSError):  # it is not empty, or was never made
                place.rmdir()
        raise


def move_up(unfinished: Path, names: Collection[str]) -> None:
    """Move files from the folder that `unfinished` gave to the one around it, in this order."""
    for name in names:
        _flush(unfinished / name)
    for name in names:
        os.replace(unfinished / name, unfinished.parent / name)


@contextmanager
def replacement(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """Give a folder for new files of these names, and put it in the place of `folder` at the end.

    All other files of the old folder are in the new one too, as links to the same data. `folder` is
    the old one or the new one at any moment, where the system can exchange two folders; elsewhere
    it is missing between two renames. After an error it is the old one.

    Args:
        folder: an existing folder.
        names: of the files that are not taken over.
    """
    folder = Path(os.path.realpath(folder))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        new = Path(beside, "new")
        _link_all(folder, new, names)
        yield new
        for name in names:
            if (new / name).exists():
                _flush(new / name)
        _exchange(folder, new)


def _link_all(folder: Path, new: Path, but: Collection[str]) -> None:
    try:
        shutil.copytree(
            folder,
            new,
            symlinks=True,
            copy_function=os.link,
            ignore=lambda place, _: set(but) if Path(place) == folder else set(),
        )
    except shutil.Error as error:
        raise MergeError(
            f"{folder} has files that cannot be moved to its replacement "
            f"({error.args[0][0][2]}); name another folder."
        ) from error


def _exchange(folder: Path, new: Path) -> None:
    system = ctypes.CDLL(None) if os.name == "posix" else None
    rename = getattr(system, "renameat2", None)  # Linux
    if rename and not rename(_HERE, os.fsencode(folder), _HERE, os.fsencode(new), _EXCHANGE):
        return
    old = new.with_name("old")
    os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        os.rename(old, folder)
        raise


def _flush(file: Path) -> None:
    """Have a file's data on the disk: some file systems notice only then that they are full."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
