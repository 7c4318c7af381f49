"""The command `run`: merges of ever more tasks, each scored on the tasks that it was made of."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import psutil
import torch
from filelock import FileLock, Timeout
from mergekit.common import ModelReference

from benchmarks.machine import cores, machine, versions
from benchmarks.quality.checkpoints import Checkpoints, read_record
from benchmarks.quality.merging.merges import Merge, merged
from benchmarks.quality.merging.methods import SCALES
from benchmarks.quality.merging.plan import plan
from benchmarks.quality.merging.scaling import ScaledMerge
from benchmarks.quality.merging.variants import method_named
from benchmarks.quality.scoring import Side, TaskScore, score_tasks
from benchmarks.quality.tasks import TASKS
from benchmarks.quality.training.settings import Kind
from mergekit_spectral.command_line.transformers_output import silence_transformers

TUNING_EXAMPLES = 60  # of all tasks together, but at least 15 of each


def run_all(
    folder: Path,
    kinds: Sequence[Kind],
    methods: Sequence[str],
    tasks: Sequence[str],
    sizes: Sequence[int],
    count: int,
    device: str = "cpu",
    workers: int = 1,
) -> None:
    """Make and score the merges that have no record yet.

    Args:
        folder: the checkpoints'.
        kinds: of fine-tunes; each is merged for itself.
        methods: by name.
        tasks: among which subsets are drawn.
        sizes: how many tasks are merged.
        count: how many subsets of each size.
        device: that merges, and that the merged models are scored on.
        workers: how many merges are made at the same time.

    Raises:
        click.ClickException: a fine-tune is missing, or mergekit failed.
    """
    silence_transformers()
    checkpoints = Checkpoints(folder)
    checkpoints.require(kinds, tasks)
    planned = list(plan(kinds, methods, tasks, sizes, count))
    missing = [merge for merge in planned if not record_path(checkpoints, merge).exists()]
    click.echo(f"{len(missing)} of {len(planned)} merges to make")
    with ExitStack() as stack:
        for kind in kinds:
            if own := [merge for merge in missing if merge.kind == kind]:
                stack.enter_context(prepared(kind, own, checkpoints))
        records = stack.enter_context(making_records(missing, checkpoints, device, workers))
        for number, (merge, record) in enumerate(zip(missing, records, strict=True), start=1):
            found = ", ".join(
                f"{fmean(record['normalized'][which].values()):.1%} at λ = "
                f"{record['scales'][which]:g}"
                for which in ("published", "tuned")
            )
            click.echo(
                f"[{number}/{len(missing)}] {merge.kind} {merge.method} of {len(merge.tasks)}: "
                f"{found}"
            )


@contextmanager
def prepared(kind: Kind, merges: Sequence[Merge], checkpoints: Checkpoints) -> Iterator[None]:
    """Keep other runs from merges of this kind, and make the copies that the merges share.

    mergekit's own methods merge models into which each adapter has been merged. Two merges at the
    same time would write the same copy.

    Raises:
        click.ClickException: another run is making merges of this kind.
    """
    work, copies = checkpoints.merging(kind), checkpoints.copies(kind)
    work.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(work.with_suffix(".lock"), timeout=0))
        except Timeout:
            raise click.ClickException(
                f"another run is merging {kind} fine-tunes in {checkpoints.folder}; wait for its "
                "end, or use another --cache"
            ) from None
        if work.exists():  # a run was killed, perhaps while it made a copy
            shutil.rmtree(work)
            shutil.rmtree(copies, ignore_errors=True)
        work.mkdir()
        for task in dict.fromkeys(t for merge in merges if merge.needs_copies for t in merge.tasks):
            adapted = ModelReference.parse(f"{checkpoints.base}+{checkpoints.path(kind, task)}")
            adapted.merged(str(copies), lora_merge_dtype="float32")
        stack.callback(shutil.rmtree, work)
        yield


@contextmanager
def making_records(
    merges: Sequence[Merge], checkpoints: Checkpoints, device: str, workers: int
) -> Iterator[Iterator[dict[str, Any]]]:
    """Give the records of merges in the same order, each once it has been made and written.

    Raises:
        click.ClickException: mergekit failed, or the system ended a worker.
    """
    work = partial(make_record, checkpoints=checkpoints, device=device)
    if workers == 1:
        yield map(work, merges)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, start_worker, (cores() // workers or 1,))
    try:
        yield pool.map(work, merges)
    except BrokenProcessPool:
        raise click.ClickException(
            "the system ended a worker, perhaps because memory ran out; use fewer --workers"
        ) from None
    finally:
        for process in multiprocessing.active_children():  # else what they have begun is waited for
            process.terminate()
        pool.shutdown()


def start_worker(threads: int) -> None:
    """Limit the threads of a worker and of what it starts, and let it end with its parent."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    silence_transformers()
    # Ctrl-C reaches the parent as well, which ends the workers. To ignore it here would make
    # mergekit-yaml ignore it too.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, end_worker)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """End this process once its parent has ended, however that was."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    end_worker()


def end_worker(*_: object) -> None:
    """End this process and the mergekit-yaml that it waits for."""
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


def make_record(merge: Merge, checkpoints: Checkpoints, device: str) -> dict[str, Any]:
    """Make and score a merge, write its record, and return it."""
    record = merge_and_score(merge, checkpoints, device)
    path = record_path(checkpoints, merge)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=1) + "\n")
    unfinished.rename(path)
    return record


def record_path(checkpoints: Checkpoints, merge: Merge) -> Path:
    """Return where the record of a merge is or will be."""
    return checkpoints.results(merge.kind) / merge.method / f"{merge.name}.json"


def merge_and_score(merge: Merge, checkpoints: Checkpoints, device: str) -> dict[str, Any]:
    """Merge, choose λ on the validation examples, and score on the test examples.

    Returns:
        The record: scores and normalized accuracies at the published λ and at the chosen one.
    """
    method = method_named(merge.method)
    alone = {task: read_record(checkpoints.path(merge.kind, task)) for task in merge.tasks}
    with merged(merge, checkpoints, device) as (folder, seconds):
        model = ScaledMerge(checkpoints.base, folder, device)

        def score(scale: float, side: Side, examples: int | None = None) -> list[TaskScore]:
            tasks = [TASKS[task] for task in merge.tasks]
            return score_tasks(model.at(scale), model.tokenizer, tasks, side, examples)

        examples = max(15, TUNING_EXAMPLES // len(merge.tasks))
        validation = {
            scale: fmean(normalized(score(scale, "validation", examples), alone).values())
            for scale in SCALES
        }
        # Of equals, the one nearest to what is published.
        tuned = min(SCALES, key=lambda s: (-validation[s], abs(s - method.scale)))
        scales = {"published": method.scale, "tuned": tuned}
        test = {scale: score(scale, "test") for scale in set(scales.values())}
    return {
        **asdict(merge),
        "parameters": dict(method.parameters),
        "scales": scales,
        "validation": validation,
        "test": {which: [asdict(s) for s in test[scale]] for which, scale in scales.items()},
        "normalized": {which: normalized(test[scale], alone) for which, scale in scales.items()},
        "merge_seconds": seconds,
        "machine": machine(),
        "versions": versions(),
    }


def normalized(scores: Sequence[TaskScore], alone: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return each task's accuracy over that of its own fine-tune on the whole of the same side.

    Args:
        scores: of a merged model.
        alone: the records of the fine-tunes, by task.

    Raises:
        click.ClickException: a fine-tune gets nothing right.
    """
    result = {}
    for score in scores:
        own = TaskScore(**alone[score.task]["after"][score.side]).accuracy
        if own == 0:
            raise click.ClickException(
                f"the fine-tune of {score.task} gets none of its {score.side} examples right, so "
                "there is nothing to compare merges to; train it with more --steps"
            )
        result[score.task] = score.accuracy / own
    return result
