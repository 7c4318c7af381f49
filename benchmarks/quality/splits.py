"""The three sides of a task: what is trained on, what settings are chosen on, what counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from mergekit_spectral.demo.examples import Example, Task

VALIDATION_SHARE = 0.08
VALIDATION_EXAMPLES = 60


@dataclass(frozen=True)
class Split:
    """Examples of one task; no two sides share a key.

    ``test`` is the task's held-out side.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


@cache
def split(task: Task) -> Split:
    """Split a task's examples by the hash of their keys."""
    end = task.held_out_share + VALIDATION_SHARE
    return Split(
        train=tuple(task.between(end, 1)),
        validation=tuple(task.between(task.held_out_share, end)[:VALIDATION_EXAMPLES]),
        test=tuple(task.held_out()),
    )
