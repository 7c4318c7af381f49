"""Time, memory and disk traffic of a command that runs as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click

# Linux counts to a process what the one that starts it has in memory, so a small one starts it.
_LAUNCHER = [
    sys.executable,
    "-c",
    "import json, resource, subprocess, sys\n"
    "silent = subprocess.DEVNULL\n"
    "status = subprocess.run(sys.argv[1:], stdout=silent, stderr=silent).returncode\n"
    "usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "print(json.dumps([status, usage.ru_maxrss, usage.ru_inblock, usage.ru_oublock]))",
]
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Taken:
    """What a process took.

    Attributes:
        seconds: wall time.
        peak_bytes: its largest resident set.
        read_bytes: that it had the disk bring; None where that is not counted.
        written_bytes: that it handed to the file system; None where that is not counted.
    """

    seconds: float
    peak_bytes: int
    read_bytes: int | None
    written_bytes: int | None


def run_command(label: str, command: Sequence[str]) -> Taken:
    """Run a command in a process of its own. Its output is not shown.

    Args:
        label: what the command is called in errors.
        command: its program and arguments.

    Raises:
        click.ClickException: it failed.
    """
    start = time.perf_counter()
    result = subprocess.run([*_LAUNCHER, *command], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    status, largest, read, written = json.loads(result.stdout)
    if status:
        raise click.ClickException(f"{label} failed: {' '.join(command)}")
    return Taken(
        seconds,
        # In kilobytes under Linux, in bytes under macOS.
        largest * (1024 if LINUX else 1),
        # Linux counts in units of 512 bytes, whatever the disk's own.
        read * 512 if LINUX else None,
        written * 512 if LINUX else None,
    )
