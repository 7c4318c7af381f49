"""The models that a recipe names: their configurations and headers, their adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from mergekit.architecture import ModelArchitecture, arch_info_for_config
from mergekit.common import ModelPath, ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from mergekit.options import MergeOptions
from transformers import PretrainedConfig

from mergekit_spectral.adapters import (
    LoraAdapter,
    ModelStructure,
    NotAProductError,
    find_adapter,
)
from mergekit_spectral.adapters.base_weights import Header
from mergekit_spectral.adapters.files import CONFIG_NAME, WEIGHTS_NAMES, AdapterFiles
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.checkpoints import (
    Checkpoint,
    NotDownloadedError,
    StoredWeights,
    find_folder,
    is_local,
    not_downloaded,
    open_checkpoint,
)
from mergekit_spectral.host.loaders import HeaderLoader, lend_loaders
from mergekit_spectral.host.lora_inputs import (
    AdaptedLoader,
    find_oddities,
    find_tied_weights,
    read_adapters_in_factors,
)
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.sections import sections
from mergekit_spectral.recipe.text import Key

T = TypeVar("T")


@dataclass(frozen=True)
class CheckedModel:
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

    @property
    def architecture(self) -> ModelArchitecture | None:
        """Its architecture as mergekit defines it; None if mergekit has to infer it."""
        return arch_info_for_config(self.config)


def open_models(
    config: MergeConfiguration, options: MergeOptions, recipe_folder: Path, findings: Findings
) -> dict[ModelReference, CheckedModel]:
    """Read the headers of a recipe's models.

    Args:
        config: the recipe.
        options: mergekit's.
        recipe_folder: the folder of the recipe.
        findings: gets the models that are missing, incomplete or wrong. They are left out.
    """
    models: dict[ModelReference, CheckedModel] = {}
    checkpoints: dict[ModelPath, Checkpoint | None] = {}
    for reference, key in references(config).items():
        path = reference.model
        if path not in checkpoints:
            read_files = partial(open_checkpoint, path, recipe_folder, config.dtype is not None)
            checkpoints[path] = found(read_files, findings, key)
        checkpoint, lora = checkpoints[path], reference.lora
        find = partial(_find_adapter_files, lora, recipe_folder) if lora else None
        files = found(find, findings, key) if find else None
        if checkpoint and bool(files) == bool(lora):
            read = partial(_read_headers, reference, checkpoint, files, options, findings, key)
            model = found(read, findings, key)
            models |= {reference: model} if model else {}
    return models


def found(read: Callable[[], T], findings: Findings, key: Key) -> T | None:
    """Return what `read` returns, or None and add a finding if it raises a `MergeError`."""
    try:
        return read()
    except NotDownloadedError as error:
        findings.absent(error.message, key)
    except MergeError as error:
        findings.error(error.message, key)
    return None


def references(config: MergeConfiguration) -> dict[ModelReference, Key]:
    """Return the models that a recipe names, each with the key at which it is named first."""
    named: dict[ModelReference, Key] = {}
    for section in sections(config):
        place = section.key[:-1]
        if section.model is not None:
            named.setdefault(section.model, (*place, "model"))
        elif section.base_model is not None:
            named.setdefault(section.base_model, (*place, "base_model"))
    return named


def header_loaders(
    models: Mapping[ModelReference, CheckedModel],
) -> dict[ModelReference, HeaderLoader]:
    """Return loaders that give mergekit the headers of models and nothing else."""
    return {r: HeaderLoader(model.index, model.headers) for r, model in models.items()}


@contextmanager
def lend_checked_files(
    config: MergeConfiguration,
    models: Mapping[ModelReference, CheckedModel],
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
            f"Model {model.model} names no single architecture in its config.json, which "
            'mergekit goes by; `architectures` must be as in ["LlamaForCausalLM"], got '
            f"{config.architectures!r}."
        )
    return config, config.architectures[0]


def _find_adapter_files(path: ModelPath, recipe_folder: Path) -> AdapterFiles:
    folder = find_folder(path, "Adapter", recipe_folder)
    if not is_local(path) and not all(any(map(Path.is_file, some)) for some in _needed(folder)):
        raise not_downloaded(path, "Adapter")
    return find_adapter(path.path, path.revision)


def _needed(folder: Path) -> list[list[Path]]:
    """Return the files of an adapter, as lists of which one file each is needed."""
    return [[folder / CONFIG_NAME], [folder / name for name in WEIGHTS_NAMES]]


def _read_headers(
    reference: ModelReference,
    checkpoint: Checkpoint,
    files: AdapterFiles | None,
    options: MergeOptions,
    findings: Findings,
    key: Key,
) -> CheckedModel:
    config, _ = read_configuration(reference, options)
    index, headers = checkpoint.index, checkpoint.headers
    if files is None:
        return CheckedModel(reference, checkpoint, config, None, index, headers)
    base = reference.model_copy(update={"lora": None})
    try:
        ties = find_tied_weights(base, options.trust_remote_code)
        stored = StoredWeights(LazyTensorLoader(index))
        structure = ModelStructure.of(config, options.trust_remote_code)
        loader = AdaptedLoader(base, stored, LoraAdapter(files), structure, ties)
    except NotAProductError as refusal:
        findings.note(
            f"Adapter {reference.lora} uses {refusal.what}, which is not an added product of two "
            "matrices.",
            key,
        )
        return CheckedModel(reference, checkpoint, config, None, index, headers, files)
    except RuntimeError as error:
        raise MergeError(f"{reference}: {first_line(error)}.") from error
    for oddity in find_oddities(loader, base):
        findings.warning(oddity, key)
    headers = {name: loader.header(name) for name in loader.index.tensor_paths}
    return CheckedModel(reference, checkpoint, config, loader.adapter, loader.index, headers, files)
