"""Results as a table, and as ratios to ties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.cases import Result
from benchmarks.machine import machine_line
from mergekit_spectral.command_line.tables import print_table

MIB = 2**20
WORDS = ("shape", "dtype", "kind", "device", "method")
HEADER = ("shape", "T", "dtype", "kind", "device", "method")
FIGURES = ("seconds (range)", "time / ties", "peak MiB", "peak / ties")

Value = Callable[[Result], float | None]


def seconds(result: Result) -> float | None:
    """Return the median time."""
    return result.median


def mebibytes(result: Result) -> float | None:
    """Return the peak above the inputs."""
    return None if result.peak_bytes is None else result.peak_bytes / MIB


def ratio_to_ties(result: Result, results: Iterable[Result], value: Value) -> float | None:
    """Return a figure over that of ties on the same weights, None if one is not there."""
    mine = value(result)
    theirs = next((value(other) for other in results if other.case == result.case.ties), None)
    return mine / theirs if mine is not None and theirs else None


def print_results(title: str, results: Sequence[Result], error: bool = False) -> None:
    """Print all results, and under them why some have no figures.

    Args:
        title: the table's heading.
        results: in the order of the rows.
        error: whether errors were asked for.
    """
    rows = []
    for result in results:
        case = result.case
        row = [case.size, str(case.inputs), case.dtype, case.kind_label, case.device, case.label]
        row += [
            _seconds(result),
            _figure(ratio_to_ties(result, results, seconds), ".2f"),
            _figure(mebibytes(result), ".1f"),
            _figure(ratio_to_ties(result, results, mebibytes), ".2f"),
        ]
        rows.append([*row, _figure(result.error, ".1e")] if error else row)
    header = [*HEADER, *FIGURES, *(["error"] if error else [])]
    failures = [f"{result.case}: {result.failure}" for result in results if result.failure]
    print_table(title, header, rows, WORDS, [*failures, machine_line()])


def _seconds(result: Result) -> str:
    if result.median is None:
        return "failed"
    least, most = min(result.seconds), max(result.seconds)
    return f"{result.median:.3g}" + (f" ({least:.3g}-{most:.3g})" if least < most else "")


def _figure(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    # Two decimals say nothing of a hundredth.
    return f"{value:.2g}" if form == ".2f" and value < 0.1 else format(value, form)
