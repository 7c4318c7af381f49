"""Merge one part of a merge, in whatever process this runs in."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from threadpoolctl import threadpool_limits

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.parts import PartMerger, tensors_in
from mergekit_spectral.methods.tally import Counts, tally
from mergekit_spectral.scaling.parts import Part
from mergekit_spectral.whole_files import errors_as_sentences, move_up, unfinished


@dataclass(frozen=True)
class Job:
    """What all parts of a merge have in common; it can be sent to another process.

    Attributes:
        recipe: the recipe's text.
        options: mergekit's.
        seed: of methods that draw at random.
        threads: of each worker.
        here: the working directory, which the recipe's paths count from.
        folder: for the parts' files.
        silenced: level of messages up to which nothing is logged, as in the process that begins.
    """

    recipe: str
    options: MergeOptions
    seed: int
    threads: int
    here: Path
    folder: Path
    silenced: int = field(default_factory=lambda: logging.root.manager.disable)


@dataclass(frozen=True)
class Done:
    """A part that is merged.

    Attributes:
        part: which.
        worker: the process, in words.
        seconds: that it took.
        peak_bytes: the largest resident set of the process so far.
        counts: how the part's weights were merged; None for a method of mergekit's own.
    """

    part: Part
    worker: str
    seconds: float
    peak_bytes: int
    counts: Counts | None = None


class Worker:
    """Merges parts of one job after the other, with the models' files open in between.

    It is a context manager.
    """

    def __init__(self, job: Job):
        self.job = job
        self._opened = ExitStack()
        self._merger: PartMerger | None = None

    def __enter__(self) -> Worker:
        """Set what is logged and the number of threads; models are opened for the first part."""
        self._opened.callback(logging.disable, logging.root.manager.disable)
        logging.disable(self.job.silenced)
        self._opened.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(self.job.threads)
        # Of the libraries that NumPy and SciPy use.
        self._opened.enter_context(threadpool_limits(self.job.threads))
        return self

    def __exit__(self, *error: object) -> None:
        """Close the models, and set the number of threads as it was before."""
        self._opened.close()
        self._merger = None

    def merge(self, part: Part) -> Done:
        """Merge a part into its file, which is whole when it appears.

        Raises:
            MergeError: an input is wrong, or the folder cannot be written to.
        """
        start = time.monotonic()
        job = self.job
        if not job.folder.is_dir():
            raise MergeError(
                f"{socket.gethostname()} does not see {job.folder}; the merged model's folder must "
                "be one that all machines share."
            )
        with errors_as_sentences(job.folder):
            if self._merger is None:
                config = MergeConfiguration.model_validate(yaml.safe_load(job.recipe))
                merger = PartMerger(config, job.options, job.seed)
                self._merger = self._opened.enter_context(merger)
            with unfinished(job.folder) as new, tally() as counted:
                merged = self._merger.merge(part.names, new)
                if more := tensors_in(merged) - set(part.names):
                    raise MergeError(f"{merged} has tensors of another part, such as {min(more)}.")
                merged.rename(new / part.file)
                move_up(new, [part.file])
        process = f"{socket.gethostname()}, process {os.getpid()}"
        counts = counted.counts() if self._merger.is_spectral else None
        return Done(part, process, time.monotonic() - start, peak_bytes(), counts)


_worker: Worker | None = None


def merge_part(job: Job, part: Part) -> Done:
    """Merge a part in a process that merges nothing else; models stay open for the next part."""
    global _worker
    if _worker is None or _worker.job != job:
        if _worker is not None:
            _worker.__exit__()
        if job.here.is_dir():  # paths may also be absolute
            os.chdir(job.here)
        _worker = Worker(job).__enter__()
    return _worker.merge(part)


def on_device(job: Job, number: int) -> Job:
    """Return a job for the worker of a number: on a GPU of its own, if the job is for all GPUs."""
    asked = torch.device(job.options.device or "cpu")
    if asked.type != "cuda" or asked.index is not None:
        return job
    device = f"cuda:{number % torch.cuda.device_count()}"
    return replace(job, options=job.options.model_copy(update={"device": device}))


def peak_bytes() -> int:
    """Return the largest resident set of this process; the present one where that is not known."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().rss)
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
