"""Check a tokenizer that mergekit puts together: from which models, and with which tokens."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from mergekit.common import ModelReference
from mergekit.tokenizer.config import ModelTokenEmbedding, TokenEmbeddingConfig
from tokenizers import Tokenizer

from mergekit_spectral.checking.cures import in_recipe
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.chat_templates import chat_template_names
from mergekit_spectral.host.checkpoints import find_folder
from mergekit_spectral.host.models import OpenedModel, describe_refusal
from mergekit_spectral.recipe.findings import Finding, error, warning
from mergekit_spectral.recipe.text import Key

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
"""A tokenizer has at least one of these files."""

_COPIED = (
    *TOKENIZER_FILES,
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
)


def check_tokenizers(subject: Subject) -> Iterator[Finding]:
    """Check ``tokenizer``, ``tokenizer_source`` and ``chat_template``."""
    config = subject.recipe.config
    key: Key = ("tokenizer_source",)
    source: object = config.tokenizer_source
    if config.tokenizer is not None:
        key, source = ("tokenizer", "source"), config.tokenizer.source
    if config.chat_template:
        yield from _check_chat_template(config.chat_template, source is not None)
    if source is None:
        yield from _check_base(subject)
        return
    if isinstance(source, ModelReference):
        yield from _check_source(source, subject, key)
    if config.base_model is None:
        yield warning(
            "without `base_model` mergekit starts from the tokenizer of any of the models; set "
            "it to the one whose tokens come first.",
            key,
        )
    for reference, model in subject.models.items():
        if not _has_tokenizer(model.checkpoint.folder):
            yield _describe_missing(reference, reference == config.base_model, subject)
    tokens = (config.tokenizer and config.tokenizer.tokens) or {}
    for token, wanted in tokens.items():
        yield from _check_token(token, wanted, subject)


def _check_source(source: ModelReference, subject: Subject, key: Key) -> Iterator[Finding]:
    try:
        subject.hub.require_readable(source.model)
        folder = find_folder(source.model, "Model", subject.recipe.path.parent)
    except MergeError as problem:
        yield describe_refusal(problem, key)
        return
    if not _has_tokenizer(folder):
        base, cure = subject.models.get(subject.recipe.config.base_model or source), None
        if base is not None and _has_tokenizer(base.checkpoint.folder):
            old = subject.recipe.text.at(key[:1])
            new = {**old, "source": "base"} if len(key) > 1 else "base"
            cure = in_recipe({str(key[0]): new})
        yield error(
            f"{source} has no tokenizer, but the recipe takes the merged model's tokenizer from "
            "it; name a model with tokenizer.json, or `base` or `union`.",
            key,
            cure,
        )


def _check_base(subject: Subject) -> Iterator[Finding]:
    """Check that the base has a tokenizer, which mergekit copies, if it is a language model."""
    base = subject.recipe.config.base_model
    if base is None or base not in subject.models or not subject.options.copy_tokenizer:
        return
    model = subject.models[base]
    if _vocabulary(model) is not None and not _has_tokenizer(model.checkpoint.folder):
        yield warning(
            f"{base} has no tokenizer, so the merged model gets none, and cannot be served or "
            "converted to GGUF; copy one there.",
            subject.recipe.references[base],
            _copy_tokenizer(base, subject),
        )


def _copy_tokenizer(base: ModelReference, subject: Subject) -> str | None:
    """Return the command that copies an input's tokenizer to the base, if the sizes agree."""
    size = _vocabulary(subject.models[base])
    folder = Path(base.model.path)
    if not (folder.is_dir() or (subject.recipe.path.parent / folder).is_dir()):
        return None  # in the Hub's cache, which only its client writes to
    for reference, model in subject.models.items():
        donor = model.checkpoint.folder
        if reference != base and _vocabulary(model) == size and _has_tokenizer(donor):
            files = sorted(str(donor / n) for n in _COPIED if (donor / n).is_file())
            return shlex.join(["cp", *files, str(subject.models[base].checkpoint.folder)])
    return None


def _vocabulary(model: OpenedModel) -> int | None:
    return getattr(model.config.get_text_config(), "vocab_size", None)


def _describe_missing(reference: ModelReference, is_base: bool, subject: Subject) -> Finding:
    key = subject.recipe.references[reference]
    if is_base:
        return error(
            "the merged model's tokenizer is put together from the base model's, but "
            f"{reference} has none; copy its tokenizer.json and tokenizer_config.json there.",
            key,
            _copy_tokenizer(reference, subject),
        )
    return warning(
        f"{reference} has no tokenizer, so mergekit assumes that it has the base model's.", key
    )


def _check_chat_template(template: str, has_tokenizer: bool) -> Iterator[Finding]:
    """Check a template as mergekit does after a merge; without a tokenizer it only warns."""
    known = chat_template_names()
    if template in ("auto", *known) or ("{" in template and len(template) >= 20):
        return
    kind = error if has_tokenizer else warning
    yield kind(
        f"`chat_template` must be auto, {', '.join(known)} or a template in Jinja, got "
        f"{template!r}.",
        ("chat_template",),
    )


def _check_token(token: str, wanted: TokenEmbeddingConfig, subject: Subject) -> Iterator[Finding]:
    models = subject.models
    key: Key = ("tokenizer", "tokens", token)
    source = wanted.source
    donor = source.model if isinstance(source, ModelTokenEmbedding) else source
    if not isinstance(donor, ModelReference):
        return
    if donor not in subject.recipe.references:
        yield error(
            f"the token {token!r} is taken from {donor}, which the recipe does not merge; name "
            "one of the recipe's models.",
            key,
        )
    text = source.token if isinstance(source, ModelTokenEmbedding) else token
    if text is not None and donor in models and not _has_token(models[donor], text):
        yield error(
            f"the token {token!r} is taken from {donor}, whose tokenizer has no {text!r}.", key
        )
    if isinstance(source, ModelTokenEmbedding) and source.token_id is not None:
        size = getattr(models[source.model].config, "vocab_size", None) if donor in models else None
        if size is not None and not 0 <= source.token_id < size:
            yield error(
                f"the token {token!r} is taken from token number {source.token_id} of "
                f"{source.model}, whose tokens are numbered from 0 to {size - 1}.",
                key,
            )


def _has_token(model: OpenedModel, text: str) -> bool:
    """Return whether a model's tokenizer has a token; True if it has no tokenizer.json."""
    file = model.checkpoint.folder / "tokenizer.json"
    return not file.is_file() or Tokenizer.from_file(str(file)).token_to_id(text) is not None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
