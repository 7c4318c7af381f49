"""Check what the merged model would wrongly take from a model's configuration."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit_spectral.checking.cures import change_merged_config
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.models import OpenedModel
from mergekit_spectral.recipe.findings import Finding, warning


def check_configs(subject: Subject) -> Iterator[Finding]:
    """Check the configuration that the merged model gets: the base's, or else that of an input."""
    models, named = subject.models, subject.recipe.references
    base = subject.recipe.config.base_model
    for donor in ({base} if base else models.keys()) & models.keys():
        if getattr(models[donor].config, "quantization_config", None):
            yield warning(
                f"the config.json of {donor} has a `quantization_config`, which the merged model "
                "gets, so that it does not load; remove it from the merged config.json.",
                named[donor],
                cure=change_merged_config(subject, "del c['quantization_config']"),
            )
    if base is None or base not in models or not _ties_head(models[base]):
        return
    for reference, model in models.items():
        if reference.lora is None and not _ties_head(model):
            yield warning(
                f"{reference} has an lm_head of its own, and the base model ties its own to the "
                "embeddings. The merged model gets the base's configuration, so its lm_head is "
                "dropped when it is loaded; set `tie_word_embeddings` to false in the merged "
                "config.json.",
                named[reference],
                cure=change_merged_config(subject, "c['tie_word_embeddings'] = False"),
            )


def _ties_head(model: OpenedModel) -> bool:
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
