"""Measure cases, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import mergekit.merge_methods as mm
import torch
from mergekit.merge_methods.base import TensorGroup
from torch import Tensor

from benchmarks import measuring, plain, weights
from benchmarks.cases import Case, Result
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.spectral import exact_matmul


def measure_all(
    groups: Sequence[Sequence[Case]],
    runs: int,
    plain_runs: int,
    error: bool,
    take: Callable[[Result], None],
) -> None:
    """Measure cases in their order, and report the progress on stderr.

    Args:
        groups: the cases; those of a group merge the same weights.
        runs: how many runs of each are timed.
        plain_runs: how many runs of each plain definition are timed.
        error: whether to take errors too.
        take: is given each result at once.
    """
    count, done = sum(map(len, groups)), 0
    for group in groups:
        # What a definition gives is made once for all cases of the group.
        with TemporaryDirectory() as folder:
            for case in group:
                definition = Path(folder, f"{case.method}-{case.kept}.pt") if error else None
                result = in_fresh_process(case, plain_runs if case.plain else runs, definition)
                done += 1
                outcome = result.failure or f"{result.median:.3g} s"
                click.echo(f"[{done}/{count}] {case}: {outcome}", err=True)
                take(result)


def in_fresh_process(case: Case, runs: int, definition: Path | None = None) -> Result:
    """Measure a case where no other case has left caches, threads or memory behind.

    Args:
        case: what to measure.
        runs: how many runs are timed, after one that is not.
        definition: also take the error; the file is where the float64 definition is, or goes if it
            is not there yet.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(measure, case, runs, definition).result()
    except BrokenProcessPool:
        return Result(case, failure="the process died: out of memory?")
    except (RuntimeError, ValueError) as error:
        return Result(case, failure=str(error).strip().splitlines()[0])


def measure(case: Case, runs: int, definition: Path | None = None) -> Result:
    """Measure a case in this process; see `in_fresh_process`."""
    group, merge = make_group(case), merger(case)

    def call() -> Tensor:
        return merge(group)

    call()
    peak = measuring.peak_bytes(call, case.device)
    seconds = measuring.seconds(call, case.device, runs)
    error = None
    if definition is not None and case.method in plain.DEFINITIONS:
        error = relative_error(case, merge, group, definition)
    return Result(case, tuple(seconds), peak, error)


def make_group(case: Case, in_factors: bool | None = None) -> TensorGroup:
    """Make the weights; LoRA inputs in factors for our methods, unless said otherwise."""
    dtype = getattr(torch, case.dtype)
    if case.kind == "dense":
        return weights.dense_group(case.shape, case.inputs, dtype, case.device)
    if in_factors is None:
        in_factors = not case.plain and isinstance(mm.get(case.method), SpectralMethod)
    return weights.lora_group(
        case.shape, case.inputs, case.rank, dtype, case.device, merged=not in_factors
    )


def merger(case: Case) -> Callable[[TensorGroup], Tensor]:
    """Return what merges a group: mergekit's interface, or the plain float32 definition."""
    if case.plain:
        return lambda group: merge_plainly(case, group)
    method = mm.get(case.method)
    values = {
        "weight": [1.0] * case.inputs,
        "density": [plain.DENSITY] * case.inputs,
        "direction": case.direction,
        "rank": case.kept,
    }
    parameters = {
        name: value
        for name, value in values.items()
        if value is not None and has_parameter(case.method, name)
    }

    def merge(group: TensorGroup) -> Tensor:
        (merged,) = method((group,), parameters=parameters)
        return merged

    return merge


def has_parameter(method: str, name: str) -> bool:
    """Whether a method has a parameter."""
    return name in {parameter.name for parameter in mm.get(method).spec.parameters}


@exact_matmul()
def merge_plainly(case: Case, group: TensorGroup) -> Tensor:
    """Merge by the definition in float32."""
    assert group.base is not None
    base = group.base.tensor
    deltas = [entry.tensor.float() - base.float() for entry in group.non_base]
    merged = plain.merge(case.method, deltas, case.direction, torch.float32, case.kept)
    return (base + merged).to(base.dtype)


def relative_error(
    case: Case, merge: Callable[[TensorGroup], Tensor], group: TensorGroup, definition: Path
) -> float:
    """Return the relative Frobenius error of the merged delta.

    The inputs' values are merged in float32, because rounding the merged weight to bfloat16 would
    hide everything else. Adapters count as they are, whichever way the case takes them in.
    """
    if definition.exists():
        expected: Tensor = torch.load(definition)
    else:
        deltas = weights.exact_deltas(make_group(case, in_factors=True))
        expected = plain.merge(case.method, deltas, case.direction, torch.float64, case.kept).cpu()
        torch.save(expected, definition)
    group = weights.in_float32(group)
    assert group.base is not None
    delta = merge(group).cpu().double() - group.base.tensor.cpu().double()
    return float((delta - expected).norm() / expected.norm())
