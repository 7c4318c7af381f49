"""LoRA inputs of a merge: read in factors, in the place of mergekit's merged copies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions

from mergekit_spectral.adapters import (
    AdaptedLoader,
    LoraAdapter,
    NotAProductError,
    StoredWeights,
    find_adapter,
)
from mergekit_spectral.recipe_check import base_models

LOG = logging.getLogger(__name__)


@contextmanager
def factored_lora_inputs(config: MergeConfiguration, options: MergeOptions) -> Iterator[None]:
    """Have mergekit load the recipe's ``base+adapter`` inputs in factors within this context.

    What is not an added product of two matrices goes mergekit's way, through a merged copy, if the
    options name a folder for those; so does a base model that is itself ``base+adapter``.

    Raises:
        MergeError: if an adapter cannot be read, does not fit its base, or is of a kind that needs
            a merged copy and there is no folder for it.
    """
    cache = LoaderCache()
    cache.setup(options)
    loaders: dict[ModelReference, Any] = {}
    inputs = [m for m in config.referenced_models() if m.lora and m not in base_models(config)]
    for reference in sorted(inputs, key=str):
        try:
            loaders[reference] = _loader(reference, cache)
        except NotAProductError as refusal:
            if options.lora_merge_cache is None:
                raise
            LOG.warning(
                "%s uses %s, which is not an added product of two matrices, so it is merged "
                "through a full copy of the model in %s.",
                reference.lora,
                refusal.what,
                options.lora_merge_cache,
            )
    before = {ref: cache.loaders[ref] for ref in loaders if ref in cache.loaders}
    cache.loaders.update(loaders)
    try:
        yield
    finally:
        for reference in loaders:
            del cache.loaders[reference]
        cache.loaders.update(before)


def _loader(reference: ModelReference, cache: LoaderCache) -> AdaptedLoader:
    assert reference.lora is not None
    adapter = LoraAdapter(find_adapter(reference.lora.path, reference.lora.revision))
    base = reference.model_copy(update={"lora": None})
    trained_on = adapter.config.base_model_name_or_path
    if trained_on and _short_name(trained_on) != _short_name(base.model.path):
        LOG.warning(
            "Adapter %s was trained on %s, but the recipe puts it on %s.",
            adapter.name,
            trained_on,
            base,
        )
    weights = StoredWeights(cache.get(base))
    loader = AdaptedLoader(base, weights, adapter)
    if extra := sorted(adapter.replacements.keys() - weights.index.tensor_paths.keys()):
        LOG.warning(
            "Adapter %s carries %s, which %s has not; it is left out unless the architecture has "
            "a place for it.",
            adapter.name,
            ", ".join(extra),
            base,
        )
    return loader


def _short_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1].lower()
