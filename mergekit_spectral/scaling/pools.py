"""Have workers merge parts: in this process, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import wait as wait_for
from typing import Any

from mergekit_spectral.errors import MergeError, first_line, needs_extra
from mergekit_spectral.scaling.parts import Part
from mergekit_spectral.scaling.resources import PROCESS_BYTES
from mergekit_spectral.scaling.worker import Done, Job, Worker, merge_part, on_device

LOSSES = 3
"""How often the worker of a part may be lost before the merge ends."""
_PLACES = ("HF_HOME", "HF_HUB_CACHE")
"""Variables that say where downloaded models are; all nodes see them in the same place."""


def merge_here(job: Job, parts: Iterable[Part]) -> Iterator[Done]:
    """Merge parts in this process, one after the other."""
    with Worker(job) as worker:
        for part in parts:
            yield worker.merge(part)


def merge_in_processes(job: Job, parts: Sequence[Part], workers: int) -> Iterator[Done]:
    """Merge parts in processes of this machine.

    If a worker is lost, because the system has no memory left for instance, the parts that were
    being merged are merged again, one at a time.

    Args:
        job: what the parts have in common.
        parts: in the order in which they are begun.
        workers: number of processes.

    Raises:
        MergeError: a worker fails, or is lost several times while it is the only one.
    """
    left, again, losses = deque(parts), deque[Part](), Counter[int]()
    while left or again:
        queue, at_a_time = (again, 1) if again else (left, workers)
        running: dict[Future[Done], Part] = {}
        with _processes(job, at_a_time) as pool:
            try:
                while queue or running:
                    while queue and len(running) < at_a_time:
                        future = pool.submit(merge_in_worker, queue[0])
                        running[future] = queue.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        done = future.result()
                        del running[future]
                        yield done
            except BrokenProcessPool:
                again.extendleft(running.values())
                for part in running.values() if at_a_time == 1 else ():
                    losses[part.number] += 1
                    if losses[part.number] == LOSSES:
                        after = len(part.names) - 1
                        others_of_part = f" or the {after} after it" if after else ""
                        raise MergeError(
                            f"A worker was killed {LOSSES} times while it merged tensor "
                            f"{part.names[0]}{others_of_part}, and nothing else was being merged; "
                            "the machine may have too little memory for it. What is merged is kept "
                            "for the next run."
                        ) from None


@contextmanager
def _processes(job: Job, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Give a pool whose processes end with this context, whatever they are doing."""
    server = "forkserver" if _can_share_imports(job) else "spawn"
    context = multiprocessing.get_context(server)
    if server == "forkserver":  # PyTorch and mergekit are imported once, and their memory is shared
        context.set_forkserver_preload([merge_part.__module__])
    others, numbers = multiprocessing.active_children(), context.Value("i", 0)
    pool = ProcessPoolExecutor(workers, context, _begin, (job, numbers))
    try:
        yield pool
        pool.shutdown()
    finally:
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        pool.shutdown(cancel_futures=True)


def _can_share_imports(job: Job) -> bool:
    """Return whether workers may be forked: not if a GPU may have been used, or only counted."""
    return "forkserver" in multiprocessing.get_all_start_methods() and job.options.device == "cpu"


_job: Job


def _begin(job: Job, numbers: Any) -> None:
    global _job
    with numbers.get_lock():
        number, numbers.value = numbers.value, numbers.value + 1
    _job = on_device(job, number)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    """End this process when the one that started it has ended, even if it was killed."""
    wait_for([sentinel])
    os._exit(1)


def merge_in_worker(part: Part) -> Done:
    """Merge a part in a process of the pool."""
    return merge_part(_job, part)


def require_ray() -> None:
    """Raise `MergeError` if Ray is not installed."""
    if find_spec("ray") is None:
        raise MergeError(needs_extra("run --ray", "ray"))


def merge_on_ray(job: Job, parts: Sequence[Part], address: str | None) -> Iterator[Done]:
    """Merge parts as tasks on a Ray cluster; tasks of workers that are lost are run again by Ray.

    Args:
        job: what the parts have in common. All nodes must see its folders and the models' files.
        parts: in the order in which they are submitted.
        address: of the cluster; None to start one on this machine.

    Raises:
        MergeError: Ray cannot be reached, or a task fails.
    """
    import ray

    started = not ray.is_initialized()
    if started:
        try:
            places = {name: os.environ[name] for name in _PLACES if name in os.environ}
            environment = {"env_vars": places} if places else None
            ray.init(
                address=address,
                runtime_env=environment,
                log_to_driver=False,
                include_dashboard=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MergeError(
                f"--ray {address}: no cluster can be reached there ({first_line(error)}); start "
                "one with `ray start --head`, or leave the address out."
            ) from error
    task, waiting = ray.remote(merge_part), set[Any]()
    try:
        alive = [each for each in ray.nodes() if each["Alive"]]  # type: ignore[no-untyped-call]
        nodes = [each["Resources"] for each in alive]
        wanted = {"CPU": job.threads, "GPU": int(job.options.device != "cpu")}
        if not any(all(node.get(k, 0) >= n for k, n in wanted.items()) for node in nodes):
            raise MergeError(
                f"No node of the Ray cluster has {job.threads} CPU"
                + " and a GPU" * wanted["GPU"]
                + ", which each task needs; add one, or use fewer --num-threads or no --cuda."
            )
        # More than any node has would wait forever.
        most = max(int(node.get("memory", 0)) for node in nodes)
        waiting = {
            task.options(
                num_cpus=wanted["CPU"],
                num_gpus=wanted["GPU"],
                memory=min(most, PROCESS_BYTES + part.memory),
                max_retries=LOSSES,
                scheduling_strategy="SPREAD",
            ).remote(job, part)
            for part in parts
        }
        while waiting:
            (done,), others = ray.wait(list(waiting))
            waiting = set(others)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise MergeError(
                    f"Ray lost a part {LOSSES + 1} times ({first_line(error)}); what is merged is "
                    "kept, so run the same command again."
                ) from error
    finally:
        for left in waiting:
            ray.cancel(left, force=True)
        if started:
            ray.shutdown()
