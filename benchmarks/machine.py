"""The machine and the versions that figures were measured on, and JSON that records them."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

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
