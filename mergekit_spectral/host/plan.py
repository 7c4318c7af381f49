"""What mergekit would do with a recipe: its own plan of a merge, made from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mergekit.architecture import ModelArchitecture as ModelArchitecture
from mergekit.architecture import WeightInfo, get_architecture_info
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import GatherTensors, LoadTensor, SaveTensor
from mergekit.merge import _model_out_config
from mergekit.merge_methods.base import MergeMethod
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
from mergekit.tokenizer import PermutedVocabulary
from mergekit.tokenizer.truncate import TruncatedVocabulary
from torch import Tensor

from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.loaders import Loader, lend_loaders
from mergekit_spectral.host.models import OpenedModel, copied_inputs, header_loaders
from mergekit_spectral.recipe.reading import Recipe


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the merged model.

    Attributes:
        name: in the merged model.
        optional: whether models may lack it.
        vocabulary: whether it has a vocabulary axis.
        remade: whether mergekit first recomputes the inputs' rows for another tokenizer.
        inputs: by model, in the recipe's order, the tensor without entries, or None where the
            model has none.
        names: by model, what the tensor is called there, which may be an alias.
        base_model: the model that the inputs are compared to, if any.
        shared: values of the parameters that all inputs share.
        per_input: by model, values of the parameters that are set for each input.
    """

    name: str
    optional: bool
    vocabulary: bool
    remade: bool
    inputs: Mapping[ModelReference, Tensor | None]
    names: Mapping[ModelReference, str]
    base_model: ModelReference | None
    shared: Mapping[str, Any]
    per_input: Mapping[ModelReference, Mapping[str, Any]]
    _loads: Mapping[ModelReference, LoadTensor] = field(repr=False)

    def read(self, model: ModelReference) -> Tensor:
        """Return a model's tensor, read by mergekit's own task through mergekit's table of loaders.

        Args:
            model: a model of which `inputs` has the tensor. Its loader must be in the table.
        """
        tensor: Tensor | None = self._loads[model].execute()
        assert tensor is not None  # `inputs` has it
        return tensor


@dataclass(frozen=True)
class PlannedMerge:
    """A merge whose recipe and models have been read, as mergekit plans it.

    Attributes:
        recipe: the recipe.
        method: the recipe's merge method.
        models: all models that the recipe names.
        options: mergekit's.
        tensors: the tensors of the merged model, in the order in which they are merged.
        read: by model, the names of the tensors that mergekit reads.
        copied: the LoRA inputs that are first merged into copies of their bases.
    """

    recipe: Recipe
    method: MergeMethod
    models: Mapping[ModelReference, OpenedModel]
    options: MergeOptions
    tensors: Sequence[PlannedTensor]
    read: Mapping[ModelReference, Collection[str]]
    copied: Collection[ModelReference]

    @property
    def copy_bytes(self) -> int:
        """Bytes of the copies that mergekit merges LoRA inputs into first."""
        return sum(self.models[each].copy_bytes(self.options) for each in self.copied)


def read_architecture(
    recipe: Recipe, models: Mapping[ModelReference, OpenedModel], options: MergeOptions
) -> ModelArchitecture:
    """Return the architecture that mergekit merges models by, known or inferred from their headers.

    Raises:
        MergeError: mergekit has no architecture for the models.
    """
    try:
        with lend_loaders(options, header_loaders(models)):
            return get_architecture_info(recipe.config, options)
    except MergeError:
        raise
    except (RuntimeError, ValueError) as error:
        raise MergeError(f"mergekit refuses these models: {first_line(error)}.") from error


def plan_merge(
    recipe: Recipe,
    method: MergeMethod,
    models: Mapping[ModelReference, OpenedModel],
    architecture: ModelArchitecture,
    options: MergeOptions,
) -> PlannedMerge:
    """Have mergekit plan a merge, from the models' headers alone.

    Raises:
        MergeError: mergekit refuses the recipe.
    """
    loaders = header_loaders(models)
    tensors = plan_tensors(recipe.config, architecture, loaders, options)
    read = {model: loader.read_names for model, loader in loaders.items()}
    copied = copied_inputs(method, models, recipe.base_models)
    return PlannedMerge(recipe, method, models, options, tensors, read, copied)


def plan_tensors(
    config: MergeConfiguration,
    architecture: ModelArchitecture,
    loaders: Mapping[ModelReference, Loader],
    options: MergeOptions,
) -> list[PlannedTensor]:
    """Have mergekit plan the tensors of a merge.

    Args:
        config: the recipe.
        architecture: of the merged model.
        loaders: of all of its models. mergekit asks for each tensor once, on the meta device.
        options: mergekit's.

    Raises:
        MergeError: mergekit refuses the recipe.
    """
    try:
        with lend_loaders(options, loaders):
            tasks = [task.tensor_task for task in plan_saves(config, architecture, options)]
            return [_read_task(task) for task in tasks if isinstance(task, ExecuteMergeMethodTask)]
    except MergeError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MergeError(f"mergekit cannot plan this merge: {first_line(error)}.") from error


def plan_saves(
    config: MergeConfiguration, architecture: ModelArchitecture, options: MergeOptions
) -> list[SaveTensor]:
    """Have mergekit plan a merge, from what its table of loaders has; return how tensors are saved.

    Nothing is written until a task is executed.
    """
    config = config.model_copy(deep=True)  # the planner changes it
    out_config = _model_out_config(config, architecture, options.trust_remote_code)
    planned = MergePlanner(config, architecture, options, out_config).plan_to_disk("")
    return [task for task in planned if isinstance(task, SaveTensor)]


def _read_task(task: ExecuteMergeMethodTask) -> PlannedTensor:
    gather = task.gather_tensors
    if isinstance(gather, PermutedVocabulary | TruncatedVocabulary):
        gather = gather.gather_tensors
    assert isinstance(gather, GatherTensors)
    weights: dict[ModelReference, WeightInfo] = dict(gather.weight_info.items())
    loads: dict[ModelReference, Any] = dict(zip(weights, gather.arguments().values(), strict=True))
    return PlannedTensor(
        name=task.output_weight.name,
        optional=task.output_weight.optional,
        vocabulary=task.output_weight.vocabulary_axis is not None,
        remade=gather is not task.gather_tensors,
        inputs={model: _load_header(loads[model]) for model in task.model_order},
        names={model: loads[model].group_label() or weights[model].name for model in weights},
        base_model=task.base_model,
        shared=dict(task.parameters.items()),
        per_input={m: dict(values.items()) for m, values in task.input_parameters.items()},
        _loads=loads,
    )


def _load_header(load: LoadTensor) -> Tensor | None:
    # On this device, tensors that mergekit puts together, such as experts, have no entries either.
    on_meta: Any = load.model_copy(update={"device": "meta"})
    with torch.device("meta"):
        try:
            tensor: Tensor | None = on_meta.execute()
        except RuntimeError as error:
            if "required but not present" in str(error):
                return None
            raise
    return tensor
