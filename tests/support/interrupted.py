"""Programs that are killed or meet a full disk, in a child of this process: importing is slow."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from mergekit_spectral.command_line.main import main


def command_on_a_full_disk(limit: int, *arguments: str) -> tuple[int, str]:
    """Run a command that may write no file of more bytes than `limit`; return status and output."""

    def run() -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        result = CliRunner().invoke(main, list(arguments))
        raised = result.exception
        told = "" if raised is None or isinstance(raised, SystemExit) else f"Traceback: {raised!r}"
        return result.exit_code, result.output + told

    return in_child(run)[1]


def killed_at(event: int, folder: Path, run: Callable[[], Any]) -> bool:
    """Run a function and kill it at its n-th event of files; tell whether it came to that.

    Events are calls of the system about paths in `folder`, and calls of its libraries.
    """

    def doomed() -> None:
        left = event

        def within(path: Any) -> bool:
            if not isinstance(path, str | bytes | os.PathLike):
                return False
            return os.fsdecode(path).startswith(str(folder))

        def count(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if name.startswith("ctypes.") or any(map(within, arguments)):
                left -= 1
                if left < 0:
                    signal.raise_signal(signal.SIGKILL)

        sys.addaudithook(count)
        run()

    return in_child(doomed)[0] == -signal.SIGKILL


def in_child(run: Callable[[], Any]) -> tuple[int | None, Any]:
    """Run a function in a fork; return its exit code, and its result if it had one."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: theirs.send(run()))
    child.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        result = None
    child.join()
    return child.exitcode, result
