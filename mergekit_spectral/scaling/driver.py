"""Merge a recipe as mergekit would, in parts that workers merge at the same time."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mergekit.options import MergeOptions

from mergekit_spectral import __version__
from mergekit_spectral.checking.checks import plan_whole_merge
from mergekit_spectral.checking.estimate import gigabytes
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.checkpoints import NotDownloadedError
from mergekit_spectral.host.devices import find_device
from mergekit_spectral.host.models import absent_models, fingerprint_contents, header_loaders
from mergekit_spectral.host.parts import assemble
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.host.whole_merges import make_copies
from mergekit_spectral.methods.tally import Counts
from mergekit_spectral.recipe.reading import RecipeLike, read_recipe
from mergekit_spectral.scaling.parts import Part, cut
from mergekit_spectral.scaling.pools import (
    merge_here,
    merge_in_processes,
    merge_on_ray,
    require_ray,
)
from mergekit_spectral.scaling.resources import default_workers, disk_bytes, threads_of
from mergekit_spectral.scaling.staging import Staging, State
from mergekit_spectral.scaling.worker import Done, Job, peak_bytes
from mergekit_spectral.whole_files import errors_as_sentences

_WITHOUT_EFFECT = {
    *("quiet", "verbosity", "num_threads", "lora_merge_cache", "transformers_cache", "device"),
    *("write_model_card", "copy_tokenizer", "clone_tensors", "async_write", "write_threads"),
}
"""Options that change no tensor. Of the device, the type counts."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """How far a merge has come.

    Attributes:
        weights: that are merged.
        of: all weights.
        share: of the work that is done, by cost.
        seconds_left: estimated from the time that was taken; None before the first part.
        done: the part that was merged last; None for those of an earlier run.
    """

    weights: int
    of: int
    share: float
    seconds_left: float | None
    done: Done | None


@dataclass(frozen=True)
class Summary:
    """What a merge took.

    Attributes:
        weights: number of weights of the merged model.
        continued: how many of them an earlier run had merged.
        workers: how many worked at a time at most; None on a Ray cluster, which decides itself.
        seconds: wall time.
        peak_bytes: the largest resident set of this process.
        worker_bytes: that of the largest worker.
        read_bytes: of the inputs' tensors that were read.
        written_bytes: of the merged model.
        counts: how the weights were merged, besides those of an earlier run; None for a method of
            mergekit's own.
    """

    weights: int
    continued: int
    workers: int | None
    seconds: float
    peak_bytes: int
    worker_bytes: int
    read_bytes: int
    written_bytes: int
    counts: Counts | None = None


def merge(
    recipe: RecipeLike,
    out: str | Path,
    options: MergeOptions | None = None,
    *,
    workers: int | None = 1,
    ray: bool | str = False,
    restart: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Say = lambda _: None,
) -> Summary:
    """Merge a recipe of any method into a folder, with the files that ``mergekit-yaml`` writes.

    A merge that was stopped continues, if it is run again with the same recipe, options and inputs.
    The folder looks like a model only when it is one.

    Args:
        recipe: the recipe: the path of its file, its text, its values as a mapping, or mergekit's
            `MergeConfiguration`. Relative paths in it count from the working directory.
        out: the folder for the merged model.
        options: mergekit's; by default its own defaults, without its progress bars.
        workers: processes that merge at a time; None for as many as cores and memory allow. One
            worker is this process, and its threads use all cores. A script that asks for more must
            do so below ``if __name__ == "__main__"``, because the workers import it.
        ray: whether to merge on a Ray cluster; or its address.
        restart: whether to start over if there is an unfinished merge.
        progress: is called after each part.
        say: is called with remarks.

    Raises:
        MergeError: the recipe or an input is wrong, an unfinished merge in the folder is another
            one, or the folder cannot be written to or its disk has too little room.
    """
    start = time.monotonic()
    staging = Staging(Path(out))
    options = options or MergeOptions(quiet=True)
    if not options.safe_serialization:
        raise MergeError("This writes safetensors only; leave out `safe_serialization`.")
    if ray:
        require_ray()
    with staging.locked():
        options = with_defaults(options, Path(out))
        fingerprint = _fingerprint(recipe, options)
        whole = None if restart else staging.whole_model_of(fingerprint)
        if whole is not None:
            say(
                "the model was merged before, and is only moved to its place; the inputs are not "
                "read again"
            )
            return Summary(
                weights=whole.weights,
                continued=whole.weights,
                workers=1,
                seconds=time.monotonic() - start,
                peak_bytes=peak_bytes(),
                worker_bytes=0,
                read_bytes=0,
                written_bytes=staging.move_up(),
            )
        find_device(options.device or "cpu", elsewhere=bool(ray))
        try:
            planned, findings = plan_whole_merge(recipe, options, Path(out))
        except NotDownloadedError:
            _download(recipe, say)
            planned, findings = plan_whole_merge(recipe, options, Path(out))
        for finding in findings:
            say(finding.in_words(planned.recipe.path))
        _require_other_folder(planned, Path(out))
        parts = cut(planned)
        _require_room(planned, parts, staging)
        if restart:
            staging.clear()
        count = 1 if ray else workers or default_workers(parts, options)
        threads = options.num_threads or (1 if ray else threads_of(count))
        weights = sum(len(part.names) for part in parts)
        state = staging.continue_or_begin(
            State(fingerprint, _fingerprint_of_inputs(planned), threads, len(parts), weights),
            options.num_threads is not None,
        )
        job = Job(
            recipe=planned.recipe.text.source,
            options=options,
            seed=options.random_seed or 0,
            threads=state.threads,
            here=Path.cwd(),
            folder=staging.parts.resolve(),
        )
        missing = staging.missing(parts)
        if missing:
            if planned.copied:
                say(f"merging LoRA inputs into {len(planned.copied)} copies of the base")
            staging.remove_unfinished_copies()
            make_copies(planned)
            staging.copies_are_whole()
        results = list(_watch(parts, missing, _merge(job, missing, count, ray), progress))
        say("putting the model together")
        with errors_as_sentences(staging.out):
            assemble(
                staging.model,
                planned.recipe.config,
                options,
                job.recipe,
                header_loaders(planned.models),
                staging.files(parts),
                staging.release,
            )
        written = staging.move_up()
    return Summary(
        weights=weights,
        continued=sum(len(part.names) for part in parts if part not in missing),
        workers=None if ray else count,
        seconds=time.monotonic() - start,
        peak_bytes=peak_bytes(),
        worker_bytes=max((done.peak_bytes for done in results), default=0),
        read_bytes=sum(part.read_bytes for part in missing),
        written_bytes=written,
        counts=_total(results),
    )


def with_defaults(options: MergeOptions, out: Path) -> MergeOptions:
    """Return mergekit's options as `run` has them: with a folder for copies of LoRA inputs."""
    return options.model_copy(
        update={
            "lora_merge_cache": options.lora_merge_cache or str(Staging(out).copies),
            "random_seed": options.random_seed or 0,
            "multi_gpu": False,  # workers take the place of mergekit's own distribution over GPUs
        }
    )


def _total(results: list[Done]) -> Counts | None:
    counts = [done.counts for done in results if done.counts is not None]
    return sum(counts, Counts()) if counts else None


def _download(recipe: RecipeLike, say: Say) -> None:
    read = read_recipe(recipe).recipe
    assert read is not None  # its models were looked for
    for model, download in list(absent_models(read)):
        say(f"downloading {model}")
        try:
            download()
        except Exception as error:  # the Hub's client raises many
            raise MergeError(
                f"{model} is not on this machine, and cannot be downloaded ({first_line(error)})."
            ) from error


def _require_other_folder(merge: PlannedMerge, out: Path) -> None:
    for reference, model in merge.models.items():
        folders = {model.checkpoint.folder, *(file.parent for file in model.files)}
        if out.resolve() in {folder.resolve() for folder in folders}:
            raise MergeError(
                f"{out} is the folder of {reference}, which the merge reads; name another folder."
            )


def _require_room(merge: PlannedMerge, parts: list[Part], staging: Staging) -> None:
    written = sum(part.written_bytes for part in parts)
    size = disk_bytes(written, merge.options)
    if merge.options.lora_merge_cache == str(staging.copies):
        size += merge.copy_bytes
    there, disk = staging.count_bytes(), shutil.disk_usage(staging.folder)
    if size - there > disk.free and disk.total:  # 0: a file system that does not say what it has
        kept = f", of which {gigabytes(there)} are there" if there else ""
        raise MergeError(
            f"The merge takes up to {gigabytes(size)} in {staging.out}{kept}, and the disk has "
            f"{gigabytes(disk.free)} free; free some space and run the command again, or name a "
            "folder on another disk."
        )


def _fingerprint(recipe: RecipeLike, options: MergeOptions) -> str:
    """Return a digest of a recipe, apart from its comments, of the options, and of the packages."""
    found = read_recipe(recipe).recipe
    device = find_device(options.device or "cpu", elsewhere=True).type
    parts = (
        *(__version__, version("mergekit"), device),
        *(options.model_dump(exclude=_WITHOUT_EFFECT), found and found.config.model_dump_json()),
    )
    return hashlib.sha256(f"{parts}".encode()).hexdigest()


def _fingerprint_of_inputs(merge: PlannedMerge) -> str:
    models = sorted(merge.models.values(), key=lambda model: str(model.reference))
    return fingerprint_contents(merge.recipe.config, models)


def _merge(job: Job, parts: list[Part], workers: int, ray: bool | str) -> Iterator[Done]:
    # Long parts first, so that no worker is left with one at the end.
    ordered = sorted(parts, key=lambda part: (-part.seconds(), part.number))
    if not parts:
        return iter(())
    if ray:
        return merge_on_ray(job, ordered, ray if isinstance(ray, str) else None)
    if workers == 1:
        return merge_here(job, parts)
    return merge_in_processes(job, ordered, workers)


def _watch(
    parts: list[Part],
    missing: list[Part],
    results: Iterator[Done],
    progress: Callable[[Progress], None],
) -> Iterator[Done]:
    start, total = time.monotonic(), sum(part.seconds() for part in parts) or 1.0
    of = sum(len(part.names) for part in parts)
    weights = of - sum(len(part.names) for part in missing)
    cost = before = total - sum(part.seconds() for part in missing)
    progress(Progress(weights, of, cost / total, None, None))
    for done in results:
        weights, cost = weights + len(done.part.names), cost + done.part.seconds()
        left = (total - cost) * (time.monotonic() - start) / max(cost - before, 1e-9)
        progress(Progress(weights, of, cost / total, left, done))
        yield done
