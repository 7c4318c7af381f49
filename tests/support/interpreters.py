"""Run code as a new interpreter does that has imported nothing, without the seconds of imports.

Importing mergekit takes seconds, nearly all of them for PyTorch, transformers and peft. A fork
server of the standard library imports these three once. Each run is a fork of that process, in
which neither mergekit nor this package has been imported, and ``import torch`` is still to come.

This cannot replace a new interpreter where the imports of other packages are what is tested, or
where the interpreter gets options.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from multiprocessing import forkserver
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from unittest import mock

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["torch", "transformers", "peft"])
# Of the server. huggingface_hub reads the second when it is imported, for all forks.
_SETTINGS = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "HF_HUB_OFFLINE": "1"}


def start() -> None:
    """Start the server, of which a process has one, before anything else does."""
    with mock.patch.dict(os.environ, _SETTINGS):
        forkserver.ensure_running()


def output_of(code: str, *arguments: str, stdin: bytes = b"", **variables: str) -> str:
    """Run code that must succeed; return what it prints. The arguments are those of `run`."""
    return run(code, *arguments, stdin=stdin, **variables).stdout.decode().strip()


def run(
    code: str, *arguments: str, stdin: bytes = b"", **variables: str
) -> CompletedProcess[bytes]:
    """Run code as ``python -c`` does. It must succeed.

    Args:
        code: to run.
        arguments: the program's, ``sys.argv[1:]``.
        stdin: what it reads.
        variables: of the environment, besides those of this process.
    """
    done = _run(["-c", *arguments], code, stdin, Path.cwd(), {**os.environ, **variables})
    assert done.returncode == 0, done.stderr.decode()
    return done


def run_module(
    module: str, *arguments: str, cwd: Path, environment: Mapping[str, str]
) -> CompletedProcess[bytes]:
    """Run a module as ``python -m`` does."""
    return _run([module, *arguments], None, b"", cwd, dict(environment))


def _run(
    argv: list[str], code: str | None, stdin: bytes, cwd: Path, environment: dict[str, str]
) -> CompletedProcess[bytes]:
    with TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(stdin)
        process = _server.Process(target=_fork, args=(argv, code, streams, cwd, environment))
        start()
        process.start()
        process.join()
        assert process.exitcode is not None
        printed = [stream.read_bytes() if stream.exists() else b"" for stream in streams]
    return CompletedProcess(argv, process.exitcode, *printed[1:])


def _fork(
    argv: list[str],
    code: str | None,
    streams: list[Path],
    cwd: Path,
    environment: dict[str, str],
) -> None:
    """Do in a fork of the server what a new interpreter does."""
    sys.stdin = streams[0].open()
    for number, stream in enumerate(streams[1:], start=1):
        with stream.open("w") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    _TorchToImport()
    started = {name.partition(".")[0] for name in sys.modules}
    assert not started & {"mergekit", "mergekit_spectral", "torch"}
    if code is None:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    else:
        exec(code, {"__name__": "__main__"})


class _TorchToImport:
    """Finds and loads the torch that the server has imported, when it is imported here.

    What is left to do is the end of its import: to load the entry points of other packages, which
    our package changes mergekit by. That may be while a module of mergekit is half imported.
    """

    def __init__(self) -> None:
        names = [name for name in sys.modules if name.partition(".")[0] == "torch"]
        self._modules = {name: sys.modules.pop(name) for name in names}
        sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != "torch":
            return None
        spec = self._modules["torch"].__spec__
        assert spec is not None
        spec.loader = self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._modules[spec.name]

    def exec_module(self, torch: Any) -> None:
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        torch.__spec__.loader = torch.__loader__
        sys.modules.update(self._modules)
        if torch._is_device_backend_autoload_enabled():
            torch._import_device_backends()
