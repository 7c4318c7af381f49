"""The folder that holds a merge until it is whole, so that it can continue if it was stopped.

It is inside of the merged model's folder. The parts' files are in it, then the model that is put
together from them. A part is removed as soon as its tensors are in a shard, so that the disk needs
room for the model and one shard more. At the end the model's files are moved up, and what says that
there is a model is moved last: the configuration and the index.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.parts import tensors_in
from mergekit_spectral.scaling.parts import Part
from mergekit_spectral.whole_files import errors_as_sentences, flush, move_up, unfinished

FOLDER = ".unfinished-merge"
VISIBLE_AFTER = 90.0
"""Seconds after which a file that one machine has written is seen by others on a shared disk."""
_STATE, _COPIED, _MOVING = "merge.json", "copied", "moving"
_LAST = ("model.safetensors.index.json", "config.json")
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|pytorch_model(-\d{5}-of-\d{5})?\.bin")


@dataclass(frozen=True)
class State:
    """What a merge that continues must have in common with the one that was stopped.

    Attributes:
        recipe: fingerprint of the recipe, the options and the program.
        inputs: fingerprint of the models.
        threads: of each worker, which may change the last digits.
        parts: number of parts.
        weights: number of weights.
    """

    recipe: str
    inputs: str
    threads: int
    parts: int
    weights: int


class Staging:
    """The folder of an unfinished merge.

    Args:
        out: the merged model's folder.
    """

    def __init__(self, out: Path):
        self.out, self.folder = out, out / FOLDER
        self.copies = self.folder / "copies"
        self.parts = self.folder / "parts"  # until `continue_or_begin`
        # The model card has the name of the folder, or of the link to it.
        self.model = self.folder / "model" / Path(os.path.abspath(out)).name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other merges out of the folder within this context.

        Raises:
            MergeError: another one is running, or the folder cannot be written to.
        """
        is_new = not self.out.exists()
        with errors_as_sentences(self.out):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / "lock"
            lock = FileLock(file, timeout=0)
            try:
                with warnings.catch_warnings():
                    # On a file system without locks, filelock takes a file that exists for one.
                    warnings.filterwarnings("ignore", "flock not supported")
                    lock.acquire()
            except Timeout:
                # Such a file has contents. It is removed if its process has ended on this machine.
                left = f" If it was killed on another machine, remove {file}."
                raise MergeError(
                    f"Another merge is writing to {self.out}; wait for it, or name another folder."
                    + left * bool(file.stat().st_size)
                ) from None
            # The merged model's folder may have had another name.
            for other in self.model.parent.glob("*"):
                other.rename(self.model)
        try:
            yield
        finally:
            if not (self.folder / _STATE).exists():  # nothing was begun, or all is done
                # While it is locked: afterwards another merge may be in it.
                shutil.rmtree(self.folder, ignore_errors=True)
            lock.release()
            if is_new:
                with suppress(OSError):  # it is not empty
                    self.out.rmdir()

    def clear(self) -> None:
        """Remove all that an unfinished merge has left."""
        for name in (_STATE, _COPIED, _MOVING):
            (self.folder / name).unlink(missing_ok=True)
        for folder in (*self.folder.glob("parts*"), self.copies, self.folder / "model"):
            shutil.rmtree(folder, ignore_errors=True)

    def continue_or_begin(self, state: State, threads_matter: bool) -> State:
        """Take up an unfinished merge, or begin one.

        Args:
            state: of the merge that is wanted.
            threads_matter: whether the number of threads was asked for.

        Returns:
            The state with the threads that the merge was begun with.

        Raises:
            MergeError: the unfinished merge is of another recipe or other inputs, or its state
                cannot be read.
        """
        found = self._read()
        if found is None:
            self.clear()
            with errors_as_sentences(self.out), unfinished(self.folder) as new:
                (new / _STATE).write_text(json.dumps(asdict(state)))
                move_up(new, [_STATE])
            found = state
        if found.recipe != state.recipe:
            raise MergeError(
                f"{self.out} has an unfinished merge of another recipe, or with other options or "
                "versions of the packages; run that again to end it, or start over with --restart."
            )
        if (found.inputs, found.parts) != (state.inputs, state.parts):
            raise MergeError(
                f"{self.out} has an unfinished merge of other inputs: files of the recipe's models "
                "have changed; put them back to end it, or start over with --restart."
            )
        if threads_matter and found.threads != state.threads:
            threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
            raise MergeError(
                f"The unfinished merge in {self.out} was begun with {threads} a worker, and "
                f"{state.threads} may round differently; leave out --num-threads, or start over "
                "with --restart."
            )
        # A worker of another merge that has not ended yet must not write here.
        name = f"parts-{found.recipe[:8]}-{found.inputs[:8]}-{found.threads}"
        self.parts = self.folder / name
        with errors_as_sentences(self.out):
            self.parts.mkdir(exist_ok=True)
        for left in self.parts.glob(".unfinished-*"):
            shutil.rmtree(left, ignore_errors=True)
        return found

    def count_bytes(self) -> int:
        """Return the size of all files that an unfinished merge has left."""
        sizes = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # a worker that has not ended yet may move its part
                sizes += path.stat().st_size if path.is_file() else 0
        return sizes

    def remove_unfinished_copies(self) -> None:
        """Remove copies of LoRA inputs that mergekit may have been writing when it was stopped.

        mergekit takes over any folder that is there.
        """
        if not (self.folder / _COPIED).exists():
            shutil.rmtree(self.copies, ignore_errors=True)

    def copies_are_whole(self) -> None:
        """Remember that mergekit has made all copies of LoRA inputs."""
        (self.folder / _COPIED).write_text("")

    def _read(self) -> State | None:
        file = self.folder / _STATE
        try:
            return State(**json.loads(file.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:  # not a reason to remove what is merged
            raise MergeError(
                f"{file} cannot be read ({first_line(error)}), so the unfinished merge cannot "
                "continue; make the file readable, or start over with --restart."
            ) from error

    def whole_model_of(self, recipe: str) -> State | None:
        """Return the state of a merge that was stopped while its whole model was moved up.

        Args:
            recipe: fingerprint of the recipe, the options and the program. None is returned if the
                merge is of another one.

        Raises:
            MergeError: the state cannot be read.
        """
        found = self._read() if (self.folder / _MOVING).exists() else None
        return found if found and found.recipe == recipe else None

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """Return the parts whose tensors are neither in their file nor in shards of the model."""
        there = {path.name for path in self.parts.glob("*.safetensors")}
        in_shards = frozenset[str]().union(*map(tensors_in, self.model.glob("*.safetensors")))
        return [
            part
            for part in parts
            if part.file not in there and not in_shards.issuperset(part.names)
        ]

    def files(self, parts: Sequence[Part]) -> list[Path]:
        """Return the files that hold merged tensors, shards of the model last.

        Raises:
            MergeError: the file of a part that another machine has merged does not appear here.
        """
        end = time.monotonic() + VISIBLE_AFTER
        while missing := self.missing(parts):
            if time.monotonic() > end:
                raise MergeError(
                    f"{self.parts / missing[0].file} was written on another machine and is not "
                    f"visible here; {self.out} must be in a folder that all machines share."
                )
            time.sleep(1)
        return [
            *sorted(self.parts.glob("*.safetensors")),
            *sorted(self.model.glob("*.safetensors")),
        ]

    def release(self, file: Path) -> None:
        """Remove the file of a part."""
        if file.parent == self.parts:
            file.unlink(missing_ok=True)

    def move_up(self) -> int:
        """Move the model, which is whole, to its place, and remove all that is left.

        Another model in that place is removed: first the configuration and the index, so that it
        never looks whole, and then its weights in either format, which might be loaded. Other files
        stay if they are not replaced.

        Returns:
            The bytes of the model's weights.
        """
        with errors_as_sentences(self.out):
            moving = self.folder / _MOVING
            if not moving.exists():
                files = [path for path in self.model.rglob("*") if path.is_file()]
                for path in files:
                    flush(path)
                size = sum(path.stat().st_size for path in files if _WEIGHTS.fullmatch(path.name))
                for name in _LAST:
                    (self.out / name).unlink(missing_ok=True)
                for path in self.out.iterdir():
                    of_weights = _WEIGHTS.fullmatch(path.name.removesuffix(".index.json"))
                    if of_weights and not (self.model / path.name).exists():
                        path.unlink()
                with unfinished(self.folder) as new:
                    (new / _MOVING).write_text(json.dumps(size))
                    move_up(new, [_MOVING])
            size = int(json.loads(moving.read_text()))
            for path in sorted(self.model.iterdir(), key=_place):
                target = self.out / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
            self.clear()
        return size


def _place(path: Path) -> tuple[int, str]:
    return (_LAST.index(path.name) if path.name in _LAST else -1), path.name
