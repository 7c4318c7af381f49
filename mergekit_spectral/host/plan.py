"""mergekit's own plan of a merge, made from headers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mergekit.architecture import ModelArchitecture, WeightInfo, get_architecture_info
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
from mergekit_spectral.host.models import CheckedModel, by_headers, copied_inputs
from mergekit_spectral.recipe.reading import Recipe


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the merged model.

    Attributes:
        name: in the merged model.
        optional: whether models may lack it.
        vocabulary: whether it has an axis of tokens.
        remade: whether mergekit makes the inputs anew first, for a tokenizer of the recipe's own.
        inputs: by model, in the recipe's order, the tensor without entries, or None where the
            model has none.
        names: by model, what the tensor is called there, which may be an alias.
        loads: by model, mergekit's task that reads it.
        base_model: that the inputs are compared to, if any.
        shared: the method's parameters.
        per_input: those that each input has its own of.
    """

    name: str
    optional: bool
    vocabulary: bool
    remade: bool
    inputs: Mapping[ModelReference, Tensor | None]
    names: Mapping[ModelReference, str]
    loads: Mapping[ModelReference, LoadTensor]
    base_model: ModelReference | None
    shared: Mapping[str, Any]
    per_input: Mapping[ModelReference, Mapping[str, Any]]


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
    models: Mapping[ModelReference, CheckedModel]
    options: MergeOptions
    tensors: Sequence[PlannedTensor]
    read: Mapping[ModelReference, Collection[str]]
    copied: Collection[ModelReference]


def read_architecture(
    recipe: Recipe, models: Mapping[ModelReference, CheckedModel], options: MergeOptions
) -> ModelArchitecture:
    """Return the architecture that mergekit merges models by, known or inferred from their headers.

    Raises:
        MergeError: mergekit has no architecture for the models.
    """
    with by_headers(models, options):
        try:
            return get_architecture_info(recipe.config, options)
        except MergeError:
            raise
        except (RuntimeError, ValueError) as error:
            raise MergeError(f"mergekit refuses these models: {first_line(error)}.") from error


def plan_merge(
    recipe: Recipe,
    method: MergeMethod,
    models: Mapping[ModelReference, CheckedModel],
    architecture: ModelArchitecture,
    options: MergeOptions,
) -> PlannedMerge:
    """Have mergekit plan a merge, from the models' headers alone.

    Raises:
        MergeError: mergekit refuses the recipe.
    """
    with by_headers(models, options) as loaders:
        tensors = planned(recipe.config, architecture, options)
        read = {model: loader.read for model, loader in loaders.items()}
    copied = copied_inputs(method, models, recipe.base_models)
    return PlannedMerge(recipe, method, models, options, tensors, read, copied)


def planned(
    config: MergeConfiguration, architecture: ModelArchitecture, options: MergeOptions
) -> list[PlannedTensor]:
    """Plan a merge of models of which mergekit sees the headers alone.

    Raises:
        MergeError: mergekit refuses the recipe.
    """
    config = config.model_copy(deep=True)  # the planner changes it
    try:
        out_config = _model_out_config(config, architecture, options.trust_remote_code)
        planner = MergePlanner(config, architecture, options, out_config)
        saved = [task for task in planner.plan_to_disk("") if isinstance(task, SaveTensor)]
        tasks = [task.tensor_task for task in saved]
        return [_planned(task) for task in tasks if isinstance(task, ExecuteMergeMethodTask)]
    except MergeError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MergeError(f"mergekit cannot plan this merge: {first_line(error)}.") from error


def _planned(task: ExecuteMergeMethodTask) -> PlannedTensor:
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
        inputs={model: _loaded(loads[model]) for model in task.model_order},
        names={model: loads[model].group_label() or weights[model].name for model in weights},
        loads=loads,
        base_model=task.base_model,
        shared=dict(task.parameters.items()),
        per_input={m: dict(values.items()) for m, values in task.input_parameters.items()},
    )


def _loaded(load: LoadTensor) -> Tensor | None:
    # There it stays also where mergekit puts it together of others, as experts.
    on_meta: Any = load.model_copy(update={"device": "meta"})
    with torch.device("meta"):
        try:
            tensor: Tensor | None = on_meta.execute()
        except RuntimeError as error:
            if "required but not present" in str(error):
                return None
            raise
    return tensor
