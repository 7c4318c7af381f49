"""What the merged model takes from a model's configuration, and should not."""

from __future__ import annotations

from collections.abc import Mapping

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration

from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.text import Key


def check_configs(
    config: MergeConfiguration,
    models: Mapping[ModelReference, CheckedModel],
    named: Mapping[ModelReference, Key],
    findings: Findings,
) -> None:
    """Check the configuration that the merged model gets: the base's, or else that of an input."""
    donors = {config.base_model} if config.base_model else models.keys()
    for donor in donors & models.keys():
        if getattr(models[donor].config, "quantization_config", None):
            findings.warning(
                f"the config.json of {donor} has a `quantization_config`, which the merged model "
                "gets, so that it does not load; remove it from the merged config.json.",
                named[donor],
            )
    base = config.base_model
    if base is None or base not in models or not _ties(models[base]):
        return
    for reference, model in models.items():
        if reference.lora is None and not _ties(model):
            findings.warning(
                f"{reference} has an lm_head of its own, and the base model ties its own to the "
                "embeddings. The merged model gets the base's configuration, so its lm_head is "
                "dropped when it is loaded; set `tie_word_embeddings` to false in the merged "
                "config.json.",
                named[reference],
            )


def _ties(model: CheckedModel) -> bool:
    return bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
