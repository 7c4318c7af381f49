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
_LAUNCHER = """
import json, resource, subprocess, sys, time
import psutil

def own_bytes(process):
    try:
        memory = [each.memory_info() for each in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    return sum(each.rss - getattr(each, "shared", 0) for each in memory)

silent = subprocess.DEVNULL
process, own = psutil.Popen(sys.argv[1:], stdout=silent, stderr=silent), 0
while process.poll() is None:
    own = max(own, own_bytes(process))
    time.sleep(0.05)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([process.returncode, usage.ru_maxrss, own, usage.ru_inblock, usage.ru_oublock]))
"""
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Taken:
    """What a process took.

    Attributes:
        seconds: wall time.
        peak_bytes: its largest resident set, or that of a process that it started.
        own_bytes: the largest memory that it and its processes had for themselves: without pages of
            files, which the system takes back when others need memory. It is looked up every 50
            milliseconds. None where files' pages are not counted apart.
        read_bytes: that it had the disk bring; None where that is not counted.
        written_bytes: that it handed to the file system; None where that is not counted.
    """

    seconds: float
    peak_bytes: int
    own_bytes: int | None
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
    result = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *command], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    status, largest, own, read, written = json.loads(result.stdout)
    if status:
        raise click.ClickException(f"{label} failed: {' '.join(command)}")
    return Taken(
        seconds,
        # In kilobytes under Linux, in bytes under macOS.
        largest * (1024 if LINUX else 1),
        own if LINUX else None,
        # Linux counts in units of 512 bytes, whatever the disk's own.
        read * 512 if LINUX else None,
        written * 512 if LINUX else None,
    )
