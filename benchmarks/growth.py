"""How time and memory grow with the number of inputs, with width and with rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case, Result


@dataclass(frozen=True)
class Series:
    """Cases that differ in one number, and in the method."""

    name: str
    title: str
    axis: str
    x: Callable[[Case], int]
    cases: list[Case]


def all_series(
    methods: Sequence[str],
    dtype: str,
    device: str,
    direction: str,
    max_inputs: int,
    max_width: int,
    max_rank: int,
) -> list[Series]:
    """Return the three series; methods take turns within each."""

    def cases(sizes: list[tuple[int, int, int | None]]) -> list[Case]:
        return [
            Case(
                method,
                shape=(width, width),
                inputs=inputs,
                dtype=dtype,
                kind="dense" if rank is None else "lora",
                rank=rank or 0,
                device=device,
                direction=direction,
            )
            for inputs, width, rank in sizes
            for method in methods
        ]

    width = min(1024, max_width)
    few = min(4, max_inputs)
    numbers = [number for number in (1, 2, 3, 4, 6, 8, 12, 16) if number <= max_inputs]
    ranks = [rank for rank in _doublings(4, max_rank) if rank <= max_width]
    fine_tunes, adapters = f"full fine-tunes, {dtype}", f"LoRA inputs, {dtype}"
    return [
        Series(
            "inputs",
            f"Growth with the number of inputs\n{width} × {width}, {fine_tunes}",
            "inputs T",
            lambda case: case.inputs,
            cases([(number, width, None) for number in numbers]),
        ),
        Series(
            "width",
            f"Growth with width\nn × n, T = {few}, {fine_tunes}",
            "width n (rows and columns)",
            lambda case: case.shape[0],
            cases([(few, size, None) for size in _doublings(min(256, max_width), max_width)]),
        ),
        Series(
            "rank",
            f"Growth with rank\n{max_width} × {max_width}, T = {few}, {adapters}",
            "rank r of each adapter",
            lambda case: case.rank,
            cases([(few, max_width, rank) for rank in ranks]),
        ),
    ]


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the p of the best fit y ∝ xᵖ, by least squares of the logarithms."""
    logarithms = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in logarithms}) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(logarithms) for values in zip(*logarithms, strict=True))
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in logarithms)
    return covariance / math.fsum((x - mean_x) ** 2 for x, _ in logarithms)


def curve(
    series: Series, results: Sequence[Result], method: str, value: Callable[[Result], float | None]
) -> list[tuple[float, float]]:
    """Return one method's points, those without a figure left out."""
    mine = [result for result in results if result.case.method == method]
    taken = [(series.x(result.case), value(result)) for result in mine]
    return [(x, y) for x, y in taken if y is not None]


def exponents(series: Series, results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return each method's exponents of time and of memory, for JSON."""
    return {
        method: {
            "seconds": exponent(curve(series, results, method, lambda r: r.median)),
            "peak_bytes": exponent(curve(series, results, method, lambda r: r.peak_bytes)),
        }
        for method in dict.fromkeys(case.method for case in series.cases)
    }


def _doublings(first: int, last: int) -> list[int]:
    sizes = []
    while first <= last:
        sizes.append(first)
        first *= 2
    return sizes
