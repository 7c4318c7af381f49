"""A tokenizer that a recipe has mergekit put together: out of whose, and with tokens of whom."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig
from tokenizers import Tokenizer

from mergekit_spectral.host.checkpoints import find_folder
from mergekit_spectral.host.models import CheckedModel, found
from mergekit_spectral.host.plan import chat_template_names
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.text import Key

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
"""Those of which a tokenizer has at least one."""


def check_tokenizers(
    config: MergeConfiguration,
    models: Mapping[ModelReference, CheckedModel],
    named: Mapping[ModelReference, Key],
    recipe_folder: Path,
    findings: Findings,
) -> None:
    """Check ``tokenizer`` and ``tokenizer_source``.

    Args:
        config: the recipe.
        models: those of the merge that are here.
        named: all of them, with the place where the recipe has each first.
        recipe_folder: where the recipe is.
        findings: gets what is wrong.
    """
    key: Key = ("tokenizer_source",)
    source: object = config.tokenizer_source
    if config.tokenizer is not None:
        key, source = ("tokenizer", "source"), config.tokenizer.source
    if config.chat_template:
        _check_chat_template(config.chat_template, source is not None, findings)
    if source is None:
        return
    if isinstance(source, ModelReference):
        _check_source(source, recipe_folder, findings, key)
    if config.base_model is None:
        findings.warning(
            "without `base_model` mergekit starts from the tokenizer of any of the models; set "
            "it to the one whose tokens come first.",
            key,
        )
    for reference, model in models.items():
        if not _has_tokenizer(model.checkpoint.folder):
            _lacks(reference, reference == config.base_model, findings, named[reference])
    tokens = (config.tokenizer and config.tokenizer.tokens) or {}
    for token, wanted in tokens.items():
        _check_token(token, wanted, models, named, findings)


def _check_source(
    source: ModelReference, recipe_folder: Path, findings: Findings, key: Key
) -> None:
    folder = found(partial(find_folder, source.model, "Model", recipe_folder), findings, key)
    if folder is not None and not _has_tokenizer(folder):
        findings.error(
            f"{source} has no tokenizer, which the merged model is to have; name a model with "
            "tokenizer.json, or `base` or `union`.",
            key,
        )


def _lacks(reference: ModelReference, is_base: bool, findings: Findings, key: Key) -> None:
    if is_base:
        findings.error(
            "the merged model's tokenizer is put together from the base model's, but "
            f"{reference} has none; copy its tokenizer.json and tokenizer_config.json there.",
            key,
        )
    else:
        findings.warning(
            f"{reference} has no tokenizer, so mergekit takes it to have the base model's.", key
        )


def _check_chat_template(template: str, fails: bool, findings: Findings) -> None:
    """Check it as mergekit does when all is merged; without a tokenizer to make it only warns."""
    known = chat_template_names()
    if template in ("auto", *known) or ("{" in template and len(template) >= 20):
        return
    tell = findings.error if fails else findings.warning
    tell(
        f"`chat_template` must be auto, {', '.join(known)} or a template in Jinja, got "
        f"{template!r}.",
        ("chat_template",),
    )


def _check_token(
    token: str,
    wanted: TokenEmbeddingConfig,
    models: Mapping[ModelReference, CheckedModel],
    named: Mapping[ModelReference, Key],
    findings: Findings,
) -> None:
    key: Key = ("tokenizer", "tokens", token)
    source = wanted.source
    donor = source.model if isinstance(source, ModelTokenEmbedding) else source
    if not isinstance(donor, ModelReference):
        return
    if donor not in named:
        findings.error(
            f"the token {token!r} is to come from {donor}, which the recipe does not merge; name "
            "one of its models.",
            key,
        )
    text = source.token if isinstance(source, ModelTokenEmbedding) else token
    if text is not None and donor in models and not _has_token(models[donor], text):
        findings.error(
            f"the token {token!r} is to come from {donor}, whose tokenizer has no {text!r}.", key
        )
    if isinstance(source, ModelTokenEmbedding) and source.token_id is not None:
        size = getattr(models[source.model].config, "vocab_size", None) if donor in models else None
        if size is not None and not 0 <= source.token_id < size:
            findings.error(
                f"the token {token!r} is to be the one numbered {source.token_id} of "
                f"{source.model}, which has {size}, from 0.",
                key,
            )


def _has_token(model: CheckedModel, text: str) -> bool:
    """Tell whether a model's tokenizer has a token, as far as that can be told at once."""
    file = model.checkpoint.folder / "tokenizer.json"
    return not file.is_file() or Tokenizer.from_file(str(file)).token_to_id(text) is not None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)
