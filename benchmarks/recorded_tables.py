"""The tables of time and memory in the documents, from the recorded results, as Markdown."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from benchmarks.recorded import Cost, cases_of, of_command, of_weight, read, runs_of
from mergekit_spectral.checking.report import duration

METHODS = ("iso", "actmat", "tsvm", "drm", "knots_ties", "star")
ALL_METHODS = ("ties", *METHODS)
UNITS = ("s", "peak MiB")
INPUTS = {"lora": "LoRA", "full": "full"}


def ratios() -> str:
    """Return what the README has: a row a case, a column a method, ratios to ties."""
    rows = []
    for label, costs in _compared():
        ties = costs["ties"]
        cells = (
            f"{ratio(costs[method].seconds / ties.seconds)} "
            f"({ratio(costs[method].peak_bytes / ties.peak_bytes)})"
            for method in METHODS
        )
        rows.append([label, *cells])
    return _table(["time (memory) / that of `ties`", *map(_code, METHODS)], rows)


def _compared() -> Iterator[tuple[str, Mapping[str, Cost]]]:
    for dtype in ("float32", "bfloat16"):
        yield f"one weight, 4 full fine-tunes, {dtype}", of_weight("weight_full", dtype)
    yield "`mergekit-yaml`, 4 full fine-tunes, bfloat16", of_command("command_full")
    yield "one weight, 8 LoRAs, bfloat16", of_weight("weight_lora", "bfloat16")
    yield "`mergekit-yaml`, 4 LoRAs, bfloat16", of_command("command_lora")


def full_weights() -> str:
    """Return times and memory for a weight of full fine-tunes, in two dtypes."""
    found = {dtype: of_weight("weight_full", dtype) for dtype in ("float32", "bfloat16")}
    rows = [
        [_code(method), *(cell for costs in found.values() for cell in _cells(costs[method]))]
        for method in ALL_METHODS
    ]
    return _table(["method", *(f"{name}, {what}" for name in found for what in UNITS)], rows)


def errors() -> str:
    """Return times, memory and errors of the methods, and of their definitions in float32."""
    found = {(case["method"], case["plain"]): case for case in cases_of("weight_error")}
    rows = []
    for method in ALL_METHODS:
        row = [_code(method)]
        for plain in (False, True):
            case = found.get((method, plain))
            if case is None:
                row += ["–"] * 3
            else:
                error = "–" if case["error"] is None else f"{case['error']:.0e}"
                row += [*_cells(Cost(case["seconds"], case["peak_bytes"])), error]
        rows.append(row)
    columns = [*UNITS, "error"]
    return _table(["method", *columns, *(f"definition, {what}" for what in columns)], rows)


def fewer_directions() -> str:
    """Return what `rank` saves for a weight of full fine-tunes."""
    cases = cases_of("weight_rank")
    ties = next(case for case in cases if case["method"] == "ties")
    rows = [
        [
            _label(case),
            _seconds(case["seconds"]),
            ratio(case["seconds"] / ties["seconds"]),
            _mebibytes(case["peak_bytes"]),
            ratio(case["peak_bytes"] / ties["peak_bytes"]),
        ]
        for case in cases
    ]
    return _table(["method", "s", "time / `ties`", "peak MiB", "peak / `ties`"], rows)


def adapters() -> str:
    """Return times and memory for the weights of an 8B model, merged from adapters."""
    cases = cases_of("weight_lora")
    shapes = dict.fromkeys("×".join(map(str, case["shape"])) for case in cases)
    rows = [
        [
            _code(method),
            *(
                f"{_seconds(case['seconds'])} ({_mebibytes(case['peak_bytes'])})"
                for case in cases
                if case["method"] == method
            ),
        ]
        for method in ALL_METHODS
    ]
    return _table(["s (peak MiB)", *shapes], rows)


def growth() -> str:
    """Return the exponents of time."""
    names = {
        "inputs": ("inputs T", "T"),
        "width": ("width n", "n"),
        "rank": ("rank r of LoRA inputs", "r"),
    }
    series = read("growth")["series"]
    rows = [
        [words, *(f"{symbol}^{power(series[name], method)}" for method in ALL_METHODS)]
        for name, (words, symbol) in names.items()
    ]
    return _table(["time grows with", *map(_code, ALL_METHODS)], rows)


def power(series: Mapping[str, Any], method: str) -> str:
    """Return the exponent of a method's time, without a minus before zero."""
    return f"{round(series['exponents'][method]['seconds'], 1) + 0.0:.1f}"


def whole_commands(name: str) -> str:
    """Return what whole commands take, from a file of `end_to_end`."""
    runs, floor = runs_of(name), read(name)["floor"]
    first = next(iter(runs.values()))["seconds"]
    costs = {re.sub(r"^\w+", r"`\g<0>`", label): one for label, one in runs.items()}
    costs["floor: each byte once, at this disk's speed"] = floor
    rows = [
        [
            label,
            _seconds(one["seconds"]),
            ratio(one["seconds"] / first),
            *(_megabytes(one.get(what)) for what in ("peak_bytes", "read_bytes", "written_bytes")),
        ]
        for label, one in costs.items()
    ]
    return _table(["", "wall s", "times `ties`", "peak MB", "read MB", "written MB"], rows)


def workers() -> str:
    """Return the times of `run` with two workers and of `mergekit-yaml`."""
    cases = {
        "workers_ties": "full, `ties`",
        "workers_drm": "full, `drm`",
        "workers_rank": "full, `drm`, `rank: 0.25`",
        "workers_lora": "LoRA, `drm`",
    }
    rows = []
    for name, label in cases.items():
        runs = runs_of(name)
        alone = runs[f"mergekit-yaml, {read(name)['method']}"]
        ties, shared = runs["mergekit-yaml, ties"], runs["run, 2 workers"]
        rows.append(
            [
                label,
                *(
                    f"{_seconds(one['seconds'])} s, {_gigabytes(one['own_bytes'])} GB"
                    for one in (alone, shared)
                ),
                ratio(shared["seconds"] / alone["seconds"]),
                ratio(shared["seconds"] / ties["seconds"]),
            ]
        )
    header = ["inputs, method", "`mergekit-yaml`", "`run`, two workers", "ratio"]
    return _table([*header, "ratio to `ties` in `mergekit-yaml`"], rows)


def estimates() -> str:
    """Return what `check` expects over what merges took."""
    rows = [
        [
            INPUTS[case["inputs"]],
            _label(case),
            f"{case['expected']['seconds'] / case['taken']['seconds']:.2f}",
            f"{case['expected']['peak_bytes'] / case['taken']['peak_bytes']:.2f}",
        ]
        for case in cases_of("estimates")
    ]
    return _table(["inputs", "method", "time", "memory"], rows)


def memory_of_large_models() -> str:
    """Return the memory of a worker and of a GPU for large models, a column a method."""
    return _large_models(
        lambda one: f"{_gigabytes(one['worker_bytes'])} ({_gigabytes(one['gpu_bytes'])})"
    )


def time_of_large_models() -> str:
    """Return the time of one core for large models, a column a method."""
    return _large_models(lambda one: duration(one["core_seconds"]))


def _large_models(cell: Callable[[Mapping[str, Any]], str]) -> str:
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for one in read("memory")["estimates"]:
        place = one["size"], INPUTS[one["kind"]], str(one["count"])
        rows.setdefault(place, {})[one["method"]] = cell(one)
    methods = list(next(iter(rows.values())))
    return _table(
        ["model", "inputs", "T", *map(_code, methods)],
        [[*place, *found.values()] for place, found in rows.items()],
    )


def four_of_70b() -> str:
    """Return the estimates for four models of 70B, a row a method."""
    rows: dict[str, list[str]] = {}
    for one in read("memory")["estimates"]:  # of adapters first
        if (one["size"], one["count"]) == ("70B", 4):
            rows.setdefault(_code(one["method"]), []).extend(
                (
                    *(_gigabytes(one[what]) for what in ("worker_bytes", "gpu_bytes")),
                    duration(one["core_seconds"]),
                )
            )
    columns = ("GB a worker", "GB of GPU", "core time")
    header = (f"{kind}: {what}" for kind in ("adapters", "full fine-tunes") for what in columns)
    return _table(["method", *header], [[method, *cells] for method, cells in rows.items()])


def tuning(name: str) -> str:
    """Return what tuning costs, from a file of `tuning_cost`."""
    words = {
        "tune": f"`tune`, {read(name)['scales']} values of λ",
        "tune, one λ": "`tune`, one value of λ (`--lambda 1:1`)",
        "mergekit-yaml": "`mergekit-yaml`, one value of λ",
        "load and score": "load the base and score the same examples",
    }
    rows = [
        [
            words[label],
            _seconds(one["seconds"]),
            *(_megabytes(one[size]) for size in ("own_bytes", "peak_bytes")),
        ]
        for label, one in runs_of(name).items()
    ]
    return _table(["command", "s", "own memory, MB", "with mapped files, MB"], rows)


def demo() -> str:
    """Return the accuracies of the demo's models, and the times of its merges."""
    found = read("demo")
    included = {"ties": ", merged copies included", "tuned": ", tuning included"}
    rows = []
    for row in found["rows"]:
        name, _, chosen = row["model"].partition(" (")
        cells = (f"{share:.0%}" for share in (*row["accuracy"], statistics.fmean(row["accuracy"])))
        seconds = row["seconds"]
        time = "" if seconds is None else f"{seconds:.0f} s{included.get(name, '')}"
        if chosen:
            method, *where = chosen.split(" ", 1)
            name += " (" + " ".join((_code(method), *where))
        elif seconds is not None:
            name = _code(name)
        rows.append([name, *cells, time])
    return _table(["model", *found["tasks"], "mean", "merge"], rows)


def ratio(value: float) -> str:
    """Return a ratio with two significant digits; one below a tenth as 1/n."""
    if value < 0.095:
        return f"1/{1 / value:.0f}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _label(case: Mapping[str, Any]) -> str:
    return _code(case["method"]) + (f", `rank: {case['kept']}`" if case["kept"] else "")


def _cells(cost: Cost) -> tuple[str, str]:
    return _seconds(cost.seconds), _mebibytes(cost.peak_bytes)


def _code(method: str) -> str:
    return f"`{method}`"


def _seconds(value: float) -> str:
    if value < 0.995:
        return f"{value:#.2g}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.0f}"


def _megabytes(size: float | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f}"
