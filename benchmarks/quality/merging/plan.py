"""Which merges there are to make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.quality.merging.merges import Merge
from benchmarks.quality.merging.subsets import subsets
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
