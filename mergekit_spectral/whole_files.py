"""Files that are whole or not there at all, and records, whatever ends the program."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter
from safetensors import SafetensorError

from mergekit_spectral.errors import MergeError, first_line

_HERE = -100
"""AT_FDCWD: paths count from the working directory."""
_EXCHANGE = 2
"""RENAME_EXCHANGE."""

T = TypeVar("T")


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
        flush(unfinished / name)
    for name in names:
        os.replace(unfinished / name, unfinished.parent / name)


def require_own(folder: Path, names: Collection[str], record: str, earlier: str) -> None:
    """Check that a folder has no files that a command would overwrite and did not write itself.

    Args:
        folder: the command's.
        names: of the files that it writes.
        record: name of a file that is there if it has written to the folder before.
        earlier: what that was, as "an earlier inspection".

    Raises:
        MergeError: there is such a file.
    """
    with errors_as_sentences(folder):
        if (folder / record).exists():
            return
        if others := [name for name in names if os.path.lexists(folder / name)]:
            raise MergeError(
                f"{folder} holds {others[0]}, which is not from {earlier} ({record} is missing) "
                "and would be overwritten; name another folder with --out."
            )


class Record(Generic[T]):
    """A file with one line for each step of a long computation, so that it can continue.

    Every line includes the fingerprint of its computation. So two that write to the same file at
    the same time do not use each other's lines. A line with another fingerprint, one that is
    damaged or incomplete, and the second one of two equal lines are left out.

    Args:
        path: path of the file.
        fingerprint: of everything that the steps depend on.
        line: of the type of a line, a pair of a fingerprint and a step.
        what: what is recorded, for messages, as "the inspection".

    Attributes:
        steps: the recorded steps, in the order in which they were added.

    Raises:
        MergeError: if the file cannot be read or written.
    """

    def __init__(self, path: Path, fingerprint: str, line: TypeAdapter[tuple[str, T]], what: str):
        self._path, self._fingerprint, self._type = path, fingerprint, line
        with errors_as_sentences(path.parent):
            if path.exists() and not path.is_file():
                raise MergeError(
                    f"{path} is not a file, so {what} cannot be recorded in it; remove it, or give "
                    "another folder with --out."
                )
            lines = path.read_bytes().split(b"\n") if path.exists() else []
            self.steps = [step for line in dict.fromkeys(lines) for step in self._read(line)]
            with unfinished(path.parent) as new:
                (new / path.name).write_text("".join(map(self._write, self.steps)))
                move_up(new, [path.name])

    def add(self, step: T) -> None:
        """Append a step to the file.

        Raises:
            MergeError: if the file cannot be written.
        """
        self.steps.append(step)
        with errors_as_sentences(self._path.parent), self._path.open("a") as file:
            file.write(self._write(step))

    def _write(self, step: T) -> str:
        return json.dumps(self._type.dump_python((self._fingerprint, step))) + "\n"

    def _read(self, line: bytes) -> Iterator[T]:
        with suppress(ValueError):
            fingerprint, step = self._type.validate_json(line)
            if fingerprint == self._fingerprint:
                yield step


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
                flush(new / name)
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


def flush(file: Path) -> None:
    """Have a file's data on the disk: some file systems notice only then that they are full."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
