"""Print the documents' tables of time and memory, from the results that were recorded.

    python -m benchmarks.documented [--write]

prints the commands that recorded `benchmarks/results/`, and the tables, or writes both into the
documents. A test compares them. `benchmarks.quality report` prints the tables of accuracy.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from benchmarks.recorded import Figures, cases_of, medians, of_command, of_weight, read
from mergekit_spectral.checking.report import duration

ROOT = Path(__file__).parents[1]
METHODS = ("iso", "actmat", "tsvm", "drm", "knots_ties", "star")

COMMANDS = {
    "weight_full": "merge_speed run --shapes 4096x4096 --dtype float32,bfloat16 --no-plain "
    "--runs 1",
    "weight_error": "merge_speed run --shapes 2048x2048 --runs 2 --plain-runs 1 --error",
    "weight_rank": "merge_speed run --shapes 2048x5632 --inputs 6 --dtype bfloat16 --no-plain "
    "--kept all,0.25 --runs 1",
    "weight_lora": "merge_speed run --set llama-8b --kind lora --inputs 8 --dtype bfloat16 "
    "--no-plain --runs 1",
    "growth": "merge_speed growth --max-width 2048 --runs 1 --plot docs/images",
    "command_full": "end_to_end --inputs full --runs 1 --warm-ups 0",
    "command_lora": "end_to_end --inputs lora --runs 1 --warm-ups 0",
    "workers_ties": "scaling --method ties --workers 2",
    "workers_drm": "scaling --workers 2",
    "workers_rank": "scaling --workers 2 --kept 0.25",
    "workers_lora": "scaling --inputs lora --workers 1,2",
    "estimates": "check_estimates",
    "memory": "memory",
    "tuning_lora": "tuning_cost --kind lora --runs 1",
    "tuning_full": "tuning_cost --kind full --tasks numbers,plurals --runs 1",
    "demo": "demo",
}
"""The file of results, and the module with its options, without `--json`."""


def commands() -> str:
    """Return the commands, a line each."""
    return "\n".join(
        f"python -m benchmarks.{command} --json benchmarks/results/{name}.json"
        for name, command in COMMANDS.items()
    )


def ratios() -> str:
    """Return what the README has: a row a case, a column a method, ratios to ties."""
    rows = []
    for label, figures in _compared():
        seconds, size = figures["ties"]
        cells = (
            f"{ratio(figures[method][0] / seconds)} ({ratio(figures[method][1] / size)})"
            for method in METHODS
        )
        rows.append([label, *cells])
    return _table(["time (memory) / that of `ties`", *map(_code, METHODS)], rows)


def full_weights() -> str:
    """Return times and memory for a weight of full fine-tunes, in two dtypes."""
    found = {dtype: of_weight("weight_full", dtype) for dtype in ("float32", "bfloat16")}
    rows = [
        [_code(method), *(cell for each in found.values() for cell in _cells(each[method]))]
        for method in ("ties", *METHODS)
    ]
    return _table(["method", *(f"{name}, {what}" for name in found for what in UNITS)], rows)


def errors() -> str:
    """Return times, memory and errors of the methods, and of their definitions in float32."""
    cases = cases_of("weight_error")
    rows = []
    for method in ("ties", *METHODS):
        row = [_code(method)]
        for plain in (False, True):
            found = [c for c in cases if (c["method"], c["plain"]) == (method, plain)]
            for case in found:
                row += [*_cells((case["seconds"], case["peak_bytes"])), _error(case["error"])]
            if not found:
                row += ["–"] * 3
        rows.append(row)
    columns = [*UNITS, "error"]
    header = ["method", *columns, *(f"definition, {what}" for what in columns)]
    return _table(header, rows)


def fewer_directions() -> str:
    """Return what `rank` saves for a weight of full fine-tunes."""
    cases = cases_of("weight_rank")
    ties = next(case for case in cases if case["method"] == "ties")
    rows = [
        [
            _code(case["method"]) + (f", `rank: {case['kept']}`" if case["kept"] else ""),
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
    shapes = list(dict.fromkeys("×".join(map(str, case["shape"])) for case in cases))
    rows = [
        [
            _code(method),
            *(
                f"{_seconds(case['seconds'])} ({_mebibytes(case['peak_bytes'])})"
                for case in cases
                if case["method"] == method
            ),
        ]
        for method in ("ties", *METHODS)
    ]
    return _table(["s (peak MiB)", *shapes], rows)


def growth() -> str:
    """Return the exponents of time."""
    names = {"inputs": "inputs T", "width": "width n", "rank": "rank r of LoRA inputs"}
    series = read("growth")["series"]
    rows = [
        [
            what,
            *(
                f"{what.split()[1]}^{series[name]['exponents'][method]['seconds'] + 0.0:.1f}"
                for method in ("ties", *METHODS)
            ),
        ]
        for name, what in names.items()
    ]
    return _table(["time grows with", *map(_code, ("ties", *METHODS))], rows)


def whole_commands(name: str) -> Callable[[], str]:
    """Return what makes the table of whole commands."""

    def table() -> str:
        found = read(name)
        runs = {label: medians(each) for label, each in found["runs"].items()}
        first = next(iter(runs.values()))["seconds"]
        rows = [
            [
                re.sub(r"^\w+", r"`\g<0>`", label),
                f"{one['seconds']:.2g}" if one["seconds"] < 10 else f"{one['seconds']:.0f}",
                ratio(one["seconds"] / first),
                *(f"{one[what] / 1e6:.0f}" for what in ("peak_bytes", "read_bytes")),
                f"{one['written_bytes'] / 1e6:.0f}",
            ]
            for label, one in runs.items()
        ]
        floor = found["floor"]
        rows.append(
            [
                "floor: each byte once, at this disk's speed",
                f"{floor['seconds']:.1f}",
                ratio(floor["seconds"] / first),
                "",
                *(f"{floor[what] / 1e6:.0f}" for what in ("read_bytes", "written_bytes")),
            ]
        )
        return _table(["", "wall s", "times `ties`", "peak MB", "read MB", "written MB"], rows)

    return table


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
        found = read(name)
        runs = {label: medians(each) for label, each in found["runs"].items()}
        ties = runs["mergekit-yaml, ties"]
        alone, shared = runs[f"mergekit-yaml, {found['method']}"], runs["run, 2 workers"]
        rows.append(
            [
                label,
                *(
                    f"{one['seconds']:.0f} s, {one['own_bytes'] / 1e9:.1f} GB"
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
            _code(case["method"]) + (f", `rank: {case['kept']}`" if case["kept"] else ""),
            f"{case['expected']['seconds'] / case['taken']['seconds']:.2f}",
            f"{case['expected']['peak_bytes'] / case['taken']['peak_bytes']:.2f}",
        ]
        for case in read("estimates")["cases"]
    ]
    return _table(["inputs", "method", "time", "memory"], rows)


def large_models(cell: Callable[[Mapping[str, Any]], str]) -> Callable[[], str]:
    """Return what makes a table of estimates for large models, a column a method."""

    def table() -> str:
        rows: dict[tuple[str, str, str], dict[str, str]] = {}
        for one in read("memory")["estimates"]:
            place = one["size"], INPUTS[one["kind"]], str(one["count"])
            rows.setdefault(place, {})[one["method"]] = cell(one)
        methods = list(next(iter(rows.values())))
        return _table(
            ["model", "inputs", "T", *map(_code, methods)],
            [[*place, *found.values()] for place, found in rows.items()],
        )

    return table


def seventy() -> str:
    """Return the estimates for four models of 70B, a row a method."""
    found = {
        (one["method"], one["kind"]): one
        for one in read("memory")["estimates"]
        if (one["size"], one["count"]) == ("70B", 4)
    }
    rows = []
    for method in dict.fromkeys(method for method, _ in found):
        row = [_code(method)]
        for kind in INPUTS:
            one = found[method, kind]
            row += [f"{one[what] / 1e9:.1f}" for what in ("worker_bytes", "gpu_bytes")]
            row.append(duration(one["core_seconds"]))
        rows.append(row)
    columns = ("GB a worker", "GB of GPU", "core time")
    words = ("adapters", "full fine-tunes")
    return _table(["method", *(f"{word}: {what}" for word in words for what in columns)], rows)


def tuning(name: str) -> Callable[[], str]:
    """Return what makes the table of what tuning costs."""

    def table() -> str:
        found = read(name)
        words = {
            "tune": f"`tune`, {found['scales']} values of λ",
            "tune, one λ": "`tune`, one value of λ (`--lambda 1:1`)",
            "mergekit-yaml": "`mergekit-yaml`, one value of λ",
            "load and score": "load the base and score the same examples",
        }
        rows = []
        for label, what in words.items():
            one = medians(found["runs"][label])
            sizes = (f"{one[size] / 1e6:.0f}" for size in ("own_bytes", "peak_bytes"))
            rows.append([what, f"{one['seconds']:.0f}", *sizes])
        return _table(["command", "s", "own memory, MB", "with mapped files, MB"], rows)

    return table


def demo() -> str:
    """Return the accuracies of the demo's models, and the times of its merges."""
    found = read("demo")
    included = {"ties": ", merged copies included", "tuned": ", tuning included"}
    rows = []
    for row in found["rows"]:
        name, _, chosen = row["model"].partition(" (")
        cells = [_percent(share) for share in (*row["accuracy"], statistics.fmean(row["accuracy"]))]
        time = "" if row["seconds"] is None else f"{row['seconds']:.0f} s{included.get(name, '')}"
        if chosen:
            method, comma, rest = chosen.partition(" at ")
            name += f" ({_code(method)}{comma}{rest}"
        elif row["seconds"] is not None:
            name = _code(name)
        rows.append([name, *cells, time])
    return _table(["model", *found["tasks"], "mean", "merge"], rows)


UNITS = ("s", "peak MiB")
INPUTS = {"lora": "LoRA", "full": "full"}
TABLES: dict[tuple[str, str, int], Callable[[], str]] = {
    ("README.md", "Time and memory", 0): ratios,
    ("docs/performance.md", "Benchmarks: speed", 0): ratios,
    ("docs/performance.md", "How it was measured", 0): commands,
    ("docs/performance.md", "One weight, full fine-tunes", 0): full_weights,
    ("docs/performance.md", "Against the definitions", 0): errors,
    ("docs/performance.md", "Fewer directions", 0): fewer_directions,
    ("docs/performance.md", "One weight, LoRA", 0): adapters,
    ("docs/performance.md", "How cost grows", 0): growth,
    ("docs/performance.md", "`mergekit-yaml` from start to finish", 0): whole_commands(
        "command_full"
    ),
    ("docs/performance.md", "Several workers", 0): workers,
    ("docs/lora.md", "How adapters are merged", 0): whole_commands("command_lora"),
    ("docs/check.md", "How good the estimates are", 0): estimates,
    ("docs/memory.md", "Common sizes", 0): large_models(
        lambda one: f"{one['worker_bytes'] / 1e9:.1f} ({one['gpu_bytes'] / 1e9:.1f})"
    ),
    ("docs/memory.md", "Common sizes", 1): large_models(lambda one: duration(one["core_seconds"])),
    ("docs/70b.md", "70B models", 0): seventy,
    ("docs/demo.md", "The demo", 0): demo,
    ("docs/tune.md", "What it costs", 0): tuning("tuning_lora"),
    ("docs/tune.md", "What it costs", 1): tuning("tuning_full"),
}
"""By page, heading, and the number of the table or block of commands below it."""


def filled(page: str, text: str) -> str:
    """Return a page's text with its tables as they are recorded.

    Args:
        page: by its path from the root.
        text: of the page.

    Raises:
        ValueError: the page does not have one of its headings, or not so many tables below it.
    """
    for (own, heading, number), table in TABLES.items():
        if own == page:
            start, end = _place(text, heading, number, "```sh\n" if table is commands else "|")
            text = text[:start] + table() + text[end:]
    return text


def _place(text: str, heading: str, number: int, mark: str) -> tuple[int, int]:
    """Return where a table begins and ends, or the lines of a block of commands."""
    section = re.search(rf"^#+ {re.escape(heading)}\n", text, re.MULTILINE)
    if section is None:
        raise ValueError(f"no heading {heading}")
    pattern = r"^```sh\n(.*?)\n```" if mark == "```sh\n" else r"^(\|[^\n]*(?:\n\|[^\n]*)*)"
    following = re.compile(r"^#+ ", re.MULTILINE).search(text, section.end())
    within = text[: following.start() if following else len(text)]
    places = re.compile(pattern, re.MULTILINE | re.DOTALL).finditer(within, section.end())
    found = [match.span(1) for match in places]
    if number >= len(found):
        raise ValueError(f"no table {number} below the heading {heading}")
    return found[number]


def ratio(value: float) -> str:
    """Return a ratio with two significant digits; one below a tenth as 1/n."""
    if value < 0.095:
        return f"1/{1 / value:.0f}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def _compared() -> Iterator[tuple[str, Figures]]:
    for dtype in ("float32", "bfloat16"):
        yield f"one weight, 4 full fine-tunes, {dtype}", of_weight("weight_full", dtype)
    yield "`mergekit-yaml`, 4 full fine-tunes, bfloat16", of_command("command_full")
    yield "one weight, 8 LoRAs, bfloat16", of_weight("weight_lora", "bfloat16")
    yield "`mergekit-yaml`, 4 LoRAs, bfloat16", of_command("command_lora")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _cells(figures: tuple[float, float]) -> tuple[str, str]:
    return _seconds(figures[0]), _mebibytes(figures[1])


def _code(method: str) -> str:
    return f"`{method}`"


def _seconds(value: float) -> str:
    return (
        f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:#.2g}"
    )


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.0f}"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}"


@click.command(help=__doc__)
@click.option("--write", is_flag=True, help="Write them into the documents.")
def main(write: bool) -> None:
    """Print or write the tables."""
    if write:
        for page in dict.fromkeys(page for page, _, _ in TABLES):
            path = ROOT / page
            path.write_text(filled(page, path.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for (page, heading, _), table in TABLES.items():
        click.echo(f"{page}, {heading}\n\n{table()}\n")


if __name__ == "__main__":
    main()
