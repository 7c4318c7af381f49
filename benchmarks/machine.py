"""What the benchmarks share in reporting: the machine, the versions, the table, the JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

PACKAGES = ("mergekit-spectral", "mergekit", "torch")


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Return what of the machine matters for a figure."""
    return {
        "cores": cores(),
        "cpu": cpu_model(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that are measured, and Python's."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine_line() -> str:
    """Return machine and versions in one line."""
    facts = machine()
    hardware = [f"{facts['cores']} cores", facts["cpu"], facts["gpu"]]
    software = [f"{name} {number}" for name, number in versions().items()]
    return ", ".join([*filter(None, hardware), *software, f"{facts['threads']} threads"])


def write_json(path: Path, **figures: Any) -> None:
    """Write figures with the machine and the versions that they were taken on."""
    report = {"machine": machine(), "versions": versions(), **figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def print_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Collection[str],
    notes: Sequence[str] = (),
) -> None:
    """Print a table: ruled in a terminal, Markdown in a pipe.

    Args:
        title: the table's heading.
        header: the columns' names.
        rows: as many cells each.
        words: which columns hold words rather than numbers.
        notes: lines to print after it.
    """
    console = Console()
    piped = not console.is_terminal
    if piped:  # it has no width, and rich would cut lines to 80
        console = Console(width=250)
    table = Table(title=title, box=box.MARKDOWN if piped else box.HEAVY_HEAD, title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name in words else "right", no_wrap=piped)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for line in notes:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if notes:  # else Markdown would run them into what follows
        console.print()
