"""mergekit's cache of loaders, one for the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions


@contextmanager
def loader_cache(options: MergeOptions) -> Iterator[LoaderCache]:
    """Give the cache, set up for a merge, and leave it afterwards with the loaders it had before.

    Args:
        options: the merge's.
    """
    cache = LoaderCache()
    cache.setup(options)
    before = dict(cache.loaders)
    try:
        yield cache
    finally:
        for model in cache.loaders.keys() - before.keys():
            del cache.loaders[model]
        cache.loaders.update(before)
