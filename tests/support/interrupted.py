"""Run code that is killed or has no disk space, in a child process.

The child is a fork of this process, so it does not have to import PyTorch again, which is slow.
"""

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
    """Run a command that cannot write files larger than `limit` bytes.

    Returns:
        Its exit status and its output, which ends with the exception if it raised one.
    """

    def run() -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        result = CliRunner().invoke(main, list(arguments))
        raised = result.exception
        crashed = raised is not None and not isinstance(raised, SystemExit)
        return result.exit_code, result.output + (f"Traceback: {raised!r}" if crashed else "")

    return in_child(run)[1]


def killed_at(event: int, folder: Path, run: Callable[[], Any]) -> bool:
    """Run a function and kill its process at the given event, counted from 0.

    Events are Python's audit events about paths in `folder`, and calls of C functions by ctypes.

    Returns:
        Whether the process was killed; False if the function ended before the event.
    """

    def run_until_killed() -> None:
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

    return in_child(run_until_killed)[0] == -signal.SIGKILL


def in_child(run: Callable[[], Any]) -> tuple[int | None, Any]:
    """Run a function in a fork of this process; return the exit code and the function's result."""
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
