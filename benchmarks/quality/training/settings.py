"""What decides how a checkpoint comes out, and the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lora", "full"]
KINDS: tuple[Kind, ...] = ("lora", "full")
LEARNING_RATES: dict[Kind, float] = {"lora": 1e-3, "full": 5e-5}
STEPS: dict[Kind, int] = {"lora": 250, "full": 150}
RANK = 16


@dataclass(frozen=True)
class Settings:
    """One training run. Two runs with equal settings make the same checkpoint.

    ``rank`` is that of the LoRA adapter, None for a full fine-tune; its alpha is twice the rank.
    """

    kind: Kind
    task: str
    steps: int
    seed: int
    learning_rate: float
    rank: int | None
    batch_size: int = 16
    warmup_steps: int = 10

    @classmethod
    def default(cls, kind: Kind, task: str, steps: int | None, seed: int) -> Settings:
        """Make the settings that the suite uses for one kind of checkpoint.

        Args:
            kind: of checkpoint.
            task: by its name.
            steps: None for the kind's own number.
            seed: of the adapter's start and of the order of the examples.
        """
        rank = RANK if kind == "lora" else None
        return cls(kind, task, steps or STEPS[kind], seed, LEARNING_RATES[kind], rank)
