"""Open the models that a recipe names, from headers alone, and lend their files to mergekit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from mergekit.architecture import ModelArchitecture, arch_info_for_config
from mergekit.common import ModelPath, ModelReference, dtype_from_name
from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from mergekit.merge_methods.base import MergeMethod
from mergekit.options import MergeOptions
from transformers import PretrainedConfig

from mergekit_spectral.adapters.adapter_files import (
    CONFIG_NAME,
    AdapterFiles,
    find_adapter,
)
from mergekit_spectral.adapters.lora import LoraAdapter, NotAProductError
from mergekit_spectral.adapters.stored_tensors import Header
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.checkpoints import (
    Checkpoint,
    NotDownloadedError,
    StoredWeights,
    find_adapter_folder,
    open_checkpoint,
)
from mergekit_spectral.host.hub import HubModels
from mergekit_spectral.host.loaders import HeaderLoader, lend_loaders
from mergekit_spectral.host.lora_inputs import (
    find_oddities,
    open_on_base,
    read_adapters_in_factors,
)
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.recipe.findings import Finding, absent, error, note, warning
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.recipe.text import Key

_HEADER_BYTES, _SAMPLES, _SAMPLE_BYTES = 1 << 20, 64, 1 << 12


@dataclass(frozen=True)
class OpenedModel:
    """A model that a recipe names, of which the configuration and the headers have been read.

    Attributes:
        reference: as the recipe has it.
        checkpoint: the model's files, or those of the base that the adapter is on.
        config: transformers' configuration.
        adapter: with the base's names for the weights that it changes; None without an adapter,
            or if that is not a product of factors.
        index: mergekit's index of its tensors, including those that an adapter brings.
        headers: the tensors' shapes and dtypes, by name.
        adapter_files: the adapter's files, if there is one.
    """

    reference: ModelReference
    checkpoint: Checkpoint
    config: PretrainedConfig
    adapter: LoraAdapter | None
    index: ShardedTensorIndex
    headers: dict[str, Header]
    adapter_files: AdapterFiles | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files with its weights, the adapter's last."""
        own = self.checkpoint.weights
        return (*own, self.adapter_files.weights) if self.adapter_files else own

    def copy_bytes(self, options: MergeOptions) -> int:
        """Return the size of a copy of the base, in the dtype that mergekit's options name."""
        dtype = dtype_from_name(options.lora_merge_dtype)
        return sum(
            torch.Size(shape).numel() * (dtype or stored).itemsize
            for shape, stored in self.checkpoint.headers.values()
        )

    @property
    def settings(self) -> tuple[Path, ...]:
        """The files with its configuration, the adapter's last."""
        own = (self.checkpoint.folder / "config.json",)
        if self.adapter_files is None:
            return own
        return (*own, self.adapter_files.weights.parent / CONFIG_NAME)

    @property
    def architecture(self) -> ModelArchitecture | None:
        """Its architecture as mergekit defines it; None if mergekit has to infer it."""
        return arch_info_for_config(self.config)


def open_models(
    recipe: Recipe, options: MergeOptions, hub: HubModels | None = None
) -> tuple[dict[ModelReference, OpenedModel], list[Finding]]:
    """Read the headers of a recipe's models.

    Args:
        recipe: the recipe.
        options: mergekit's.
        hub: the models of which only the headers are on this machine.

    Returns:
        The models that are on this machine and can be read, and findings about the others.
    """
    hub = hub or HubModels()
    models: dict[ModelReference, OpenedModel] = {}
    findings: list[Finding] = []
    checkpoints: dict[ModelPath, Checkpoint | None] = {}
    folder, converted = recipe.path.parent, recipe.config.dtype is not None
    for reference, key in recipe.references.items():
        path, lora, files = reference.model, reference.lora, None
        try:
            if path not in checkpoints:
                checkpoints[path] = None
                hub.require_readable(path)
                complete = path in hub.downloads
                checkpoints[path] = open_checkpoint(path, folder, converted, complete)
        except MergeError as problem:
            findings.append(describe_refusal(problem, key))
        try:
            if lora:
                hub.require_readable(lora)
                find_adapter_folder(lora, folder, complete=lora in hub.downloads)
                files = find_adapter(lora.path, lora.revision)
            checkpoint = checkpoints[path]
            if checkpoint and bool(files) == bool(lora):
                models[reference], more = _read_headers(reference, checkpoint, files, options, key)
                findings += more
        except MergeError as problem:
            findings.append(describe_refusal(problem, key))
    return models, findings


def absent_models(recipe: Recipe) -> Iterator[tuple[ModelPath, Callable[[], object]]]:
    """Yield the models and adapters that are not on this machine, and what downloads each."""
    folder = recipe.path.parent
    for path in {reference.model: None for reference in recipe.references}:
        try:
            open_checkpoint(path, folder, converted=True)
        except NotDownloadedError:
            yield path, ModelReference(model=path).local_path
        except MergeError:
            pass  # the checks say what is wrong
    for lora in {reference.lora: None for reference in recipe.references if reference.lora}:
        try:
            find_adapter_folder(lora, folder)
        except NotDownloadedError:
            yield lora, partial(snapshot_download, lora.path, revision=lora.revision)
        except MergeError:
            pass


def describe_refusal(problem: MergeError, key: Key) -> Finding:
    """Return the finding that a model cannot be read: a warning if it may still be downloaded."""
    kind = absent if isinstance(problem, NotDownloadedError) else error
    return kind(problem.message, key)


def copied_inputs(
    method: MergeMethod | None,
    models: Mapping[ModelReference, OpenedModel],
    bases: Collection[ModelReference],
) -> list[ModelReference]:
    """Return the LoRA inputs that a merge first merges into copies of their bases.

    Args:
        method: the recipe's. mergekit's own methods read all LoRA inputs from copies.
        models: the recipe's.
        bases: the models that inputs are compared to.
    """
    if isinstance(method, SpectralMethod):
        return whole_inputs(models, bases)
    return [reference for reference in models if reference.lora is not None]


def whole_inputs(
    models: Mapping[ModelReference, OpenedModel], bases: Collection[ModelReference]
) -> list[ModelReference]:
    """Return the LoRA inputs that cannot be read in factors, because they are no products or bases.

    Args:
        models: the recipe's.
        bases: the models that inputs are compared to.
    """
    return [
        reference
        for reference, model in models.items()
        if reference.lora is not None and (model.adapter is None or reference in bases)
    ]


def header_loaders(
    models: Mapping[ModelReference, OpenedModel],
) -> dict[ModelReference, HeaderLoader]:
    """Return loaders that give mergekit the headers of models and nothing else."""
    return {r: HeaderLoader(model.index, model.headers) for r, model in models.items()}


@contextmanager
def lend_opened_files(
    config: MergeConfiguration,
    models: Mapping[ModelReference, OpenedModel],
    options: MergeOptions,
) -> Iterator[None]:
    """Have mergekit read the files of models that were checked, without asking the hub for them.

    Adapters are read in factors.
    """
    files: dict[ModelReference, LazyTensorLoader] = {
        reference.model_copy(update={"lora": None}): LazyTensorLoader(model.checkpoint.index)
        for reference, model in models.items()
    }
    with lend_loaders(options, files) as table:
        read_adapters_in_factors(config, options, table)
        yield


def read_configuration(
    model: ModelReference, options: MergeOptions
) -> tuple[PretrainedConfig, str]:
    """Return a model's configuration and the one architecture that it names.

    Raises:
        MergeError: transformers cannot read it, or it names no or several architectures.
    """
    try:
        config = model.config(options.trust_remote_code)
    except Exception as error:  # transformers raises many
        raise MergeError(
            f"Model {model.model}: transformers cannot read its config.json ({first_line(error)})."
        ) from error
    if not isinstance(config.architectures, list) or len(config.architectures) != 1:
        raise MergeError(
            f"Model {model.model} does not name exactly one architecture in its config.json; "
            '`architectures` must be a list of one name, such as ["LlamaForCausalLM"], got '
            f"{config.architectures!r}."
        )
    return config, config.architectures[0]


def fingerprint_files(models: Iterable[OpenedModel]) -> str:
    """Return a digest that differs if a file of a model, or its configuration, has changed.

    Files are compared by path, size and time of the last change.
    """
    digest = hashlib.sha256()
    for model in models:
        for file in (*model.files, *model.settings):
            state = file.stat()
            digest.update(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()


def fingerprint_contents(config: MergeConfiguration, models: Collection[OpenedModel]) -> str:
    """Return a digest that differs if what a model's files hold has changed, wherever they are.

    Of files with weights, the size, the beginning with the header, and samples are compared.
    Tokenizers are compared if the recipe has mergekit build one, which orders the embeddings.

    Args:
        config: the recipe.
        models: the recipe's, in an order of their own.
    """
    digest = hashlib.sha256()
    for file in _tokenizer_files(config, models):
        digest.update(file.name.encode() + file.read_bytes())
    for model in models:
        for settings in model.settings:
            digest.update(settings.read_bytes())
        for file in model.files:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as opened:
                digest.update(opened.read(_HEADER_BYTES))
                for number in range(_SAMPLES):
                    opened.seek(size * number // _SAMPLES)
                    digest.update(opened.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _tokenizer_files(config: MergeConfiguration, models: Collection[OpenedModel]) -> Iterator[Path]:
    """Yield the files of tokenizers in folders. On the Hub, a commit's files do not change."""
    sources = (config.tokenizer_source, config.tokenizer and config.tokenizer.source)
    if not any(sources):
        return
    named = [source for source in sources if isinstance(source, ModelReference)]
    paths = [reference.model.path for reference in (*(m.reference for m in models), *named)]
    for folder in map(Path, dict.fromkeys(paths)):
        for kind in ("json", "model", "txt", "jinja", "tiktoken"):
            yield from sorted(folder.glob(f"*.{kind}"))


def _read_headers(
    reference: ModelReference,
    checkpoint: Checkpoint,
    files: AdapterFiles | None,
    options: MergeOptions,
    key: Key,
) -> tuple[OpenedModel, list[Finding]]:
    config, _ = read_configuration(reference, options)
    index, headers = checkpoint.index, checkpoint.headers
    if files is None:
        return OpenedModel(reference, checkpoint, config, None, index, headers), []
    base = reference.model_copy(update={"lora": None})
    try:
        stored = StoredWeights(LazyTensorLoader(index))
        adapter = LoraAdapter(files)
        loader = open_on_base(adapter, base, stored, config, options.trust_remote_code)
    except NotAProductError as refusal:
        message = (
            f"Adapter {reference.lora} uses {refusal.what}, which is not an added product of two "
            "matrices."
        )
        model = OpenedModel(reference, checkpoint, config, None, index, headers, files)
        return model, [note(message, key)]
    except RuntimeError as problem:
        raise MergeError(f"{reference}: {first_line(problem)}.") from problem
    findings = [warning(oddity, key) for oddity in find_oddities(loader, base)]
    adapter, index, headers = loader.adapter, loader.index, loader.headers()
    return OpenedModel(reference, checkpoint, config, adapter, index, headers, files), findings
