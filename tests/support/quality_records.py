"""Write records like those of the benchmarks' `train` and `run`, with chosen numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MACHINE = {"cores": 2, "cpu": "a CPU", "gpu": None, "threads": 2}
VERSIONS = {"python": "3.11.0", "torch": "2.13.0"}


def write_training(
    cache: Path, kind: str, task: str, base: float, accuracy: float, choice: bool = False
) -> None:
    def scores(value: float) -> dict[str, Any]:
        return {
            side: {
                "task": task,
                "side": side,
                "examples": 100,
                # A task with choices is scored by `choice` alone.
                "exact": 0.0 if choice else value,
                "choice": value if choice else None,
            }
            for side in ("validation", "test")
        }

    _write(
        cache / kind / task / "training.json",
        settings={"kind": kind, "task": task},
        loss={"10": 1.25, "150": 0.0625},
        before=scores(base),
        after=scores(accuracy),
        seconds={"training": 100.0, "all": 120.0},
        machine=MACHINE,
        versions=VERSIONS,
    )


def write_merge(
    cache: Path,
    kind: str,
    method: str,
    published: dict[str, float],
    tuned: dict[str, float],
    scale: float = 2.0,
    seed: int = 0,
) -> None:
    _write(
        cache / "results" / kind / method / f"{'-'.join(published)}-{seed}.json",
        kind=kind,
        method=method,
        tasks=list(published),
        seed=seed,
        parameters={},
        scales={"published": 1.0, "tuned": scale},
        validation={"1.0": 0.5, "2.0": 0.75},
        test={},
        normalized={"published": published, "tuned": tuned},
        merge_seconds=12.34,
        machine=MACHINE,
        versions=VERSIONS,
    )


def _write(path: Path, **record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
