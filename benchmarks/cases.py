"""One merge of one weight: its settings, and its time, memory and error."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """A method and what it merges.

    Attributes:
        method: by its name in recipes.
        shape: of the weight, [out, in].
        inputs: how many are merged.
        dtype: of all weights.
        kind: dense or lora.
        rank: of LoRA inputs.
        device: where the weights are.
        direction: of the methods that have one.
        kept: the method's parameter `rank`; None if it is not set.
        plain: whether the definition is measured instead of the registered method.
    """

    method: str
    shape: tuple[int, int]
    inputs: int
    dtype: str = "float32"
    kind: str = "dense"
    rank: int = 16
    device: str = "cpu"
    direction: str = "horizontal"
    kept: float | None = None
    plain: bool = False

    @property
    def label(self) -> str:
        method = self.method if self.kept is None else f"{self.method}, rank {self.kept:g}"
        return f"plain {method}" if self.plain else method

    @property
    def size(self) -> str:
        return "{}x{}".format(*self.shape)

    @property
    def kind_label(self) -> str:
        return f"LoRA r={self.rank}" if self.kind == "lora" else self.kind

    @property
    def ties(self) -> Case:
        """What this case is compared to."""
        return replace(self, method="ties", kept=None, plain=False)

    def __str__(self) -> str:
        kind = f"{self.dtype} {self.kind_label}"
        return f"{self.size}, T={self.inputs}, {kind}, {self.device}: {self.label}"


@dataclass(frozen=True)
class Result:
    """A case's figures; `failure` is the reason if there are none."""

    case: Case
    seconds: tuple[float, ...] = ()
    peak_bytes: int | None = None
    error: float | None = None
    failure: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        return {
            **asdict(self.case),
            "seconds": self.median,
            "seconds_min": min(self.seconds, default=None),
            "seconds_max": max(self.seconds, default=None),
            "runs": len(self.seconds),
            "peak_bytes": self.peak_bytes,
            "error": self.error,
            "failure": self.failure,
        }
