"""Print the README's table of time and memory, from the results that were recorded.

    python -m benchmarks.readme

The figures are ratios to mergekit's own ties in the same run. Other runs are recorded by

    python -m benchmarks.merge_speed run --shapes 4096x4096 --inputs 4 --dtype float32,bfloat16 \
        --no-plain --json benchmarks/results/weight_full.json
    python -m benchmarks.merge_speed run --shapes 4096x4096 --inputs 8 --kind lora \
        --dtype bfloat16 --no-plain --json benchmarks/results/weight_lora.json
    python -m benchmarks.end_to_end --inputs full --json benchmarks/results/command_full.json
    python -m benchmarks.end_to_end --inputs lora --json benchmarks/results/command_lora.json
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
METHODS = ("iso", "actmat", "tsvm", "drm", "knots_ties", "star")

Figures = Mapping[str, tuple[float, float]]
"""By method, seconds and bytes."""


def speed_table(folder: Path = RESULTS) -> str:
    """Return the table in Markdown: a row a case, a column a method.

    Args:
        folder: has the four files that the module's docstring names.
    """
    head = ["time (memory) / that of `ties`", *(f"`{method}`" for method in METHODS)]
    lines = [head, ["---"] * len(head)]
    for label, figures in _rows(folder):
        seconds, size = figures["ties"]
        cells = (
            f"{ratio(figures[method][0] / seconds)} ({ratio(figures[method][1] / size)})"
            if method in figures
            else "–"
            for method in METHODS
        )
        lines.append([label, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ratio(value: float) -> str:
    """Return a ratio with two significant digits; one below a tenth as 1/n."""
    if value < 0.095:
        return f"1/{1 / value:.0f}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _rows(folder: Path) -> Iterator[tuple[str, Figures]]:
    for dtype in ("float32", "bfloat16"):
        yield (
            f"one weight, 4 full fine-tunes, {dtype}",
            _of_weight(folder / "weight_full.json", dtype),
        )
    yield (
        "`mergekit-yaml`, 4 full fine-tunes, bfloat16",
        _of_command(folder / "command_full.json", "ties"),
    )
    yield "one weight, 8 LoRAs, bfloat16", _of_weight(folder / "weight_lora.json", "bfloat16")
    yield (
        "`mergekit-yaml`, 4 LoRAs, bfloat16",
        _of_command(folder / "command_lora.json", "ties, first merge"),
    )


def _of_weight(path: Path, dtype: str) -> Figures:
    cases = _read(path)["cases"]
    return {
        each["method"]: (each["seconds"], each["peak_bytes"])
        for each in cases
        if each["dtype"] == dtype
    }


def _of_command(path: Path, ties: str) -> Figures:
    runs: dict[str, list[dict[str, Any]]] = _read(path)["runs"]
    return {
        label.replace(ties, "ties"): (
            statistics.median(run["seconds"] for run in each),
            statistics.median(run["peak_bytes"] for run in each),
        )
        for label, each in runs.items()
    }


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    print(speed_table())
