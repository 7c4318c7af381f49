"""Which tasks are merged together."""

from __future__ import annotations

import random
from collections.abc import Sequence


def subsets(tasks: Sequence[str], size: int, count: int) -> list[tuple[str, ...]]:
    """Draw `count` different subsets of `size` tasks, or all that there are.

    The draw depends on its arguments alone, and a larger `count` only adds to it.

    Args:
        tasks: all tasks, in the order in which a subset has them.
        size: from 1 to the number of tasks.
        count: at least 1.
    """
    possible = 1 if size == len(tasks) else count
    draw = random.Random(f"{size} of {len(tasks)}")
    found: dict[tuple[str, ...], None] = {}
    while len(found) < possible:
        chosen = set(draw.sample(list(tasks), size))
        found[tuple(task for task in tasks if task in chosen)] = None
    return list(found)
