"""LoRA inputs of a merge: read in factors, in the place of mergekit's merged copies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mergekit.architecture import arch_info_for_config
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions

from mergekit_spectral.adapters import (
    AdaptedLoader,
    LoraAdapter,
    ModelStructure,
    NotAProductError,
    StoredWeights,
    find_adapter,
)
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.loader_cache import loader_cache
from mergekit_spectral.recipe.sections import base_models

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
    with loader_cache(options) as cache:
        cache.loaders.update(_loaders(config, cache))
        yield


def _loaders(config: MergeConfiguration, cache: LoaderCache) -> dict[ModelReference, Any]:
    """Return a loader for each model with an adapter."""
    references = {model for model in config.referenced_models() if model.lora}
    loaders: dict[ModelReference, Any] = {}
    for base in sorted(references & base_models(config), key=str):
        loaders[base] = _merged_base(base, cache)
    for reference in sorted(references - loaders.keys(), key=str):
        try:
            loaders[reference] = _loader(reference, cache)
        except NotAProductError as refusal:
            if cache.lora_cache_dir is None:
                raise
            LOG.warning(
                "%s uses %s, which is not an added product of two matrices, so it is merged "
                "through a full copy of the model in %s.",
                reference.lora,
                refusal.what,
                cache.lora_cache_dir,
            )
            loaders[reference] = cache.get(reference)
    return loaders


def _merged_base(reference: ModelReference, cache: LoaderCache) -> LazyTensorLoader:
    if cache.lora_cache_dir is None:
        raise MergeError(
            f"The base model {reference} is itself an adapter on a model, and needs to be whole to "
            "be compared to; give --lora-merge-cache FOLDER for a full copy of it."
        )
    return cache.get(reference)


def _loader(reference: ModelReference, cache: LoaderCache) -> AdaptedLoader:
    assert reference.lora is not None
    path, revision = reference.lora.path, reference.lora.revision
    adapter = LoraAdapter(find_adapter(path, revision, cache.hf_cache_dir))
    base = reference.model_copy(update={"lora": None})
    weights = StoredWeights(cache.get(base))
    structure = ModelStructure.of(base.config(cache.trust_remote_code), cache.trust_remote_code)
    ties = tied_weights(base, cache.trust_remote_code)
    loader = AdaptedLoader(base, weights, adapter, structure, ties)
    for remark in remarks(loader, base):
        LOG.warning("%s", remark)
    return loader


def remarks(loader: AdaptedLoader, base: ModelReference) -> Iterator[str]:
    """Yield sentences on what is odd about an adapter and its base, if it is not wrong."""
    adapter = loader.adapter
    trained_on = adapter.config.base_model_name_or_path
    if trained_on and _short_name(trained_on) != _short_name(base.model.path):
        yield (
            f"Adapter {adapter.name} was trained on {trained_on}, but the recipe puts it on {base}."
        )
    if extra := sorted(adapter.replacements.keys() - loader.weights.index.tensor_paths.keys()):
        yield (
            f"Adapter {adapter.name} carries {', '.join(extra)}, which {base} has not; it is left "
            "out unless the architecture has a place for it."
        )


def tied_weights(model: ModelReference, trust_remote_code: bool) -> dict[str, tuple[str, ...]]:
    """Return the weights that a model's files may lack, each with those that it may be tied to."""
    config = model.config(trust_remote_code)
    architecture = arch_info_for_config(config)
    if architecture is None:
        return {}
    return {w.name: tuple(w.tied_names) for w in architecture.all_weights(config) if w.tied_names}


def _short_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1].lower()
