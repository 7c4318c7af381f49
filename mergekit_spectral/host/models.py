"""The models of a recipe, by their headers, in the place of mergekit's loaders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mergekit.merge
import torch
from mergekit.common import ModelPath, ModelReference
from mergekit.io.lazy_tensor_loader import LazyTensorLoader, ShardedTensorIndex
from mergekit.merge_methods.base import MergeMethod
from mergekit.options import MergeOptions
from torch import Tensor
from transformers import PretrainedConfig

from mergekit_spectral.adapters import (
    AdaptedLoader,
    LoraAdapter,
    ModelStructure,
    NotAProductError,
    StoredWeights,
    find_adapter,
)
from mergekit_spectral.adapters.files import CONFIG_NAME, WEIGHTS_NAMES, AdapterFiles
from mergekit_spectral.adapters.loader import name_among
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.checkpoints import (
    Checkpoint,
    Header,
    NotDownloadedError,
    find_folder,
    is_local,
    not_downloaded,
    open_checkpoint,
)
from mergekit_spectral.host.loader_cache import loader_cache
from mergekit_spectral.host.lora_inputs import remarks, tied_weights
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.recipe.findings import Finding, absent, error, note, warning
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.recipe.text import Key


@dataclass(frozen=True)
class CheckedModel:
    """A model that a recipe names, as far as headers tell.

    Attributes:
        reference: as the recipe has it.
        checkpoint: of the model, or of the base that the adapter is on.
        config: transformers' configuration.
        adapter: with the base's names for the weights that it changes; None without an adapter,
            or if that is not a product of factors.
        index: of the tensors that it has, an adapter's included.
        headers: their shapes and dtypes.
        adapter_files: of the adapter, if there is one.
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


class HeaderLoader:
    """Stands in for mergekit's loader; its tensors have a shape and a dtype, and no entries.

    Args:
        model: whose tensors they are.

    Attributes:
        index: mergekit's index of them.
        read: the names of those that mergekit has asked for.
    """

    def __init__(self, model: CheckedModel):
        self.index = model.index
        self.read: set[str] = set()
        self._headers = model.headers

    def get_tensor(
        self,
        key: str,
        device: str = "cpu",
        aliases: list[str] | None = None,
        raise_on_missing: bool = True,
    ) -> Tensor | None:
        """Return a tensor on the meta device.

        Raises:
            KeyError: if there is no such tensor and `raise_on_missing`.
        """
        name = name_among(self._headers, key, aliases, raise_on_missing)
        if name is None:
            return None
        self.read.add(name)
        shape, dtype = self._headers[name]
        return torch.empty(shape, dtype=dtype, device="meta")

    def flush(self) -> None:
        """Do nothing: no file is open."""


def open_models(
    recipe: Recipe, options: MergeOptions
) -> tuple[dict[ModelReference, CheckedModel], list[Finding]]:
    """Read the headers of a recipe's models.

    Args:
        recipe: the recipe.
        options: mergekit's.

    Returns:
        The models that are on this machine and can be read, and findings about the others.
    """
    models: dict[ModelReference, CheckedModel] = {}
    findings: list[Finding] = []
    checkpoints: dict[ModelPath, Checkpoint | None] = {}
    folder, converted = recipe.path.parent, recipe.config.dtype is not None
    for reference, key in recipe.references.items():
        path, lora, files = reference.model, reference.lora, None
        try:
            if path not in checkpoints:
                checkpoints[path] = None
                checkpoints[path] = open_checkpoint(path, folder, converted)
        except MergeError as problem:
            findings.append(describe_refusal(problem, key))
        try:
            files = _adapter_files(lora, folder) if lora else None
            checkpoint = checkpoints[path]
            if checkpoint and bool(files) == bool(lora):
                models[reference], more = _read(reference, checkpoint, files, options, key)
                findings += more
        except MergeError as problem:
            findings.append(describe_refusal(problem, key))
    return models, findings


def describe_refusal(problem: MergeError, key: Key) -> Finding:
    """Return the finding that a model cannot be read: a warning if it may still be downloaded."""
    kind = absent if isinstance(problem, NotDownloadedError) else error
    return kind(problem.message, key)


def copied_inputs(
    method: MergeMethod | None,
    models: Mapping[ModelReference, CheckedModel],
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
    models: Mapping[ModelReference, CheckedModel], bases: Collection[ModelReference]
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


@contextmanager
def by_headers(
    models: Mapping[ModelReference, CheckedModel], options: MergeOptions
) -> Iterator[dict[ModelReference, HeaderLoader]]:
    """Have mergekit see nothing but headers within this context, and give their loaders."""
    # To ask for it has mergekit ask loaders for names of tensors, where it was not wrapped yet.
    _ = mergekit.merge.run_merge
    with loader_cache(options) as cache:
        stand_ins: dict[ModelReference, Any] = {r: HeaderLoader(m) for r, m in models.items()}
        cache.loaders.update(stand_ins)
        yield stand_ins


def _adapter_files(path: ModelPath, recipe_folder: Path) -> AdapterFiles:
    folder = find_folder(path, "Adapter", recipe_folder)
    if not is_local(path) and not all(any(map(Path.is_file, some)) for some in _needed(folder)):
        raise not_downloaded(path, "Adapter")
    return find_adapter(path.path, path.revision)


def _needed(folder: Path) -> list[list[Path]]:
    """Return the files of an adapter, each as those of which one will do."""
    return [[folder / CONFIG_NAME], [folder / name for name in WEIGHTS_NAMES]]


def _read(
    reference: ModelReference,
    checkpoint: Checkpoint,
    files: AdapterFiles | None,
    options: MergeOptions,
    key: Key,
) -> tuple[CheckedModel, list[Finding]]:
    try:
        config = reference.config(options.trust_remote_code)
    except Exception as problem:  # transformers raises many
        raise MergeError(
            f"Model {reference.model}: transformers cannot read its config.json "
            f"({first_line(problem)})."
        ) from problem
    if not isinstance(config.architectures, list) or len(config.architectures) != 1:
        raise MergeError(
            f"Model {reference.model} names no single architecture in its config.json, which "
            'mergekit goes by; `architectures` must be as in ["LlamaForCausalLM"], got '
            f"{config.architectures!r}."
        )
    index, headers = checkpoint.index, checkpoint.headers
    if files is None:
        return CheckedModel(reference, checkpoint, config, None, index, headers), []
    base = reference.model_copy(update={"lora": None})
    try:
        ties = tied_weights(base, options.trust_remote_code)
        stored = StoredWeights(LazyTensorLoader(index))
        structure = ModelStructure.of(config, options.trust_remote_code)
        loader = AdaptedLoader(base, stored, LoraAdapter(files), structure, ties)
    except NotAProductError as refusal:
        message = (
            f"Adapter {reference.lora} uses {refusal.what}, which is not an added product of two "
            "matrices."
        )
        model = CheckedModel(reference, checkpoint, config, None, index, headers, files)
        return model, [note(message, key)]
    except RuntimeError as problem:
        raise MergeError(f"{reference}: {first_line(problem)}.") from problem
    findings = [warning(remark, key) for remark in remarks(loader, base)]
    headers = {name: loader.header(name) for name in loader.index.tensor_paths}
    index, adapter = loader.index, loader.adapter
    return CheckedModel(reference, checkpoint, config, adapter, index, headers, files), findings
