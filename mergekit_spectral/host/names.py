"""The names of mergekit that this package relies on.

This module imports the standard library only; see `mergekit_spectral.host`.
"""

from __future__ import annotations

import logging
from importlib.machinery import PathFinder
from types import ModuleType

LOG = logging.getLogger(__name__)

NAMES: dict[str, tuple[str, ...]] = {
    "mergekit._data.chat_templates": (),
    "mergekit.architecture": (
        "ModelArchitecture.all_weights",
        "ModelArchitecture.modules",
        "WeightInfo.name",
        "WeightInfo.optional",
        "WeightInfo.tied_names",
        "WeightInfo.vocabulary_axis",
        "arch_info_for_config",
        "get_architecture_info",
    ),
    "mergekit.architecture.auto": ("get_model_tensor_names",),
    "mergekit.architecture.conversion": (
        "can_convert_checkpoint_keys",
        "convert_checkpoint_tensors",
    ),
    "mergekit.card": ("is_hf",),
    "mergekit.common": (
        "ModelPath.path",
        "ModelPath.revision",
        "ModelReference.config",
        "ModelReference.lora",
        "ModelReference.model",
        "dtype_from_name",
        "get_auto_cls",
        "parse_kmb",
    ),
    "mergekit.config": (
        "ConditionalParameter",
        "InputModelDefinition",
        "InputSliceDefinition",
        "MergeConfiguration.referenced_models",
        "OutputSliceDefinition",
        "ParameterSetting",
        "ScalarParameter",
    ),
    "mergekit.evo.genome": (
        "METHOD_PARAM_MAPS",
        "ModelGenome._to_torch",
        "ModelGenome.genotype_merge_config",
        "ModelGenomeDefinition.base_model",
        "ModelGenomeDefinition.merge_method",
    ),
    "mergekit.graph": ("Executor.run", "Task"),
    "mergekit.io.lazy_tensor_loader": (
        "LazyTensorLoader.flush",
        "LazyTensorLoader.get_tensor",
        "ShardedTensorIndex.base_path",
        "ShardedTensorIndex.from_disk",
        "ShardedTensorIndex.tensor_paths",
    ),
    "mergekit.io.tasks": (
        "FinalizeModel",
        "GatherTensors.arguments",
        "GatherTensors.weight_info",
        "LoadTensor.device",
        "LoadTensor.execute",
        "LoadTensor.group_label",
        "LoaderCache.get",
        "LoaderCache.loaders",
        "LoaderCache.setup",
        "SaveTensor.dtype",
        "SaveTensor.execute",
        "SaveTensor.tensor_name",
        "SaveTensor.tensor_task",
        "SaveTensor.writer_task",
        "TensorWriterTask.max_shard_size",
        "TensorWriterTask.out_path",
    ),
    "mergekit.io.tensor_writer": (
        "TensorWriter._write_shard_task",
        "TensorWriter.finalize",
        "TensorWriter.save_tensor",
    ),
    "mergekit.merge": ("Executor", "_model_out_config", "generate_card", "run_merge"),
    "mergekit.merge_methods": ("get", "registered_methods"),
    "mergekit.merge_methods.base": (
        "BasePolicy",
        "BatchOptions",
        "GroupMergeMethod._execute",
        "InputContract",
        "MISSING",
        "MergeMethod.validate_inputs",
        "MergeMethodSpec",
        "OptionalTensorPolicy",
        "ParameterScope",
        "ParameterSpec",
        "TensorEntry",
        "TensorGroup",
        "TensorMetadata",
    ),
    "mergekit.merge_methods.generalized_task_arithmetic": (
        "GeneralizedTaskArithmeticMerge.consensus_method",
        "GeneralizedTaskArithmeticMerge.sparsification_method",
    ),
    "mergekit.merge_methods.registry": ("_METHODS", "get", "registered_methods"),
    "mergekit.merge_methods.task_adapter": (
        "ExecuteMergeMethodTask.base_model",
        "ExecuteMergeMethodTask.gather_tensors",
        "ExecuteMergeMethodTask.input_parameters",
        "ExecuteMergeMethodTask.method_name",
        "ExecuteMergeMethodTask.model_order",
        "ExecuteMergeMethodTask.output_weight",
        "ExecuteMergeMethodTask.parameters",
    ),
    "mergekit.options": (
        "MergeOptions.device",
        "MergeOptions.low_cpu_memory",
        "MergeOptions.lora_merge_cache",
        "MergeOptions.multi_gpu",
        "MergeOptions.transformers_cache",
        "MergeOptions.trust_remote_code",
    ),
    "mergekit.plan": ("MergePlanner.plan_to_disk",),
    "mergekit.sparsify": ("SparsificationMethod", "sparsify"),
    "mergekit.tokenizer": ("PermutedVocabulary.gather_tensors",),
    "mergekit.tokenizer.config": ("ModelTokenEmbedding", "TokenEmbeddingConfig"),
    "mergekit.tokenizer.truncate": ("TruncatedVocabulary.gather_tensors",),
}
"""For each of mergekit's modules, what it must have once it is imported.

These are all names that this package imports or replaces, and those attributes of its classes that
a merge or a plan cannot do without. Of a module without names, only the files beside it are used.
mergekit's documentation promises few of them.
"""

_misfits: list[str] = []


def has_names(module: ModuleType) -> bool:
    """Whether a module has all that we rely on; if not, `refuse` with the names."""
    missing = [name for name in NAMES[module.__name__] if not _has(module, name)]
    if missing:
        refuse(f"{module.__name__} has no {', '.join(missing)}")
    return not missing


def has_modules(mergekit: ModuleType) -> bool:
    """Whether mergekit has all modules that we rely on; if not, `refuse` with the first one.

    None of them is imported.
    """
    for module in NAMES:
        path, name = mergekit.__path__, mergekit.__name__
        for part in module.split(".")[1:]:
            name = f"{name}.{part}"
            spec = PathFinder.find_spec(name, path)
            if spec is None:
                refuse(f"there is no {name}")
                return False
            path = spec.submodule_search_locations or []
    return True


def _has(module: ModuleType, name: str) -> bool:
    top, _, attribute = name.partition(".")
    if not attribute or not hasattr(module, top):
        return hasattr(module, top)
    owner = getattr(module, top)
    # The fields of pydantic's models and of dataclasses need not be attributes of the class.
    fields = (getattr(owner, kind, {}) for kind in ("model_fields", "__dataclass_fields__"))
    return hasattr(owner, attribute) or any(attribute in names for names in fields)


def refuse(misfit: str) -> None:
    """Leave mergekit without our methods from now on. The first time, log a warning.

    Args:
        misfit: what is wrong, for the user.
    """
    _misfits.append(misfit)
    if len(_misfits) == 1:
        # Not `warnings`: those may be set to raise.
        LOG.warning(
            "mergekit-spectral does not fit this version of mergekit, which continues without "
            "it: %s.",
            misfit,
        )


def fits() -> bool:
    """Whether nothing that we rely on has been missed so far."""
    return not _misfits
