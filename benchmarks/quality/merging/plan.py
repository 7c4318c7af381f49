"""Which merges there are to make."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.merging.variants import method_named
from benchmarks.quality.training.settings import Kind

SIZES = (2, 5, 10)
SUBSETS = 3
SEEDS = 3


def plan(
    kinds: Sequence[Kind],
    methods: Sequence[str],
    tasks: Sequence[str],
    sizes: Sequence[int],
    count: int,
) -> Iterator[Merge]:
    """List all merges. Subsets follow one another, so that what is there early compares methods.

    Where a method is random, each subset has its own seed, and the subset of all tasks `SEEDS`.
    """
    for kind in kinds:
        for number in range(count):
            for size in sizes:
                drawn = subsets(tasks, size, count)
                if number < len(drawn):
                    for method in methods:
                        yield Merge(kind, method, drawn[number], number)
        if len(tasks) in sizes:
            for seed in range(1, SEEDS):
                for method in methods:
                    if method_named(method).random:
                        yield Merge(kind, method, tuple(tasks), seed)


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
