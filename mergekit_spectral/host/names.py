"""The names of mergekit that a merge with our methods relies on."""

from __future__ import annotations

import logging
from types import ModuleType

LOG = logging.getLogger(__name__)

NAMES: dict[str, tuple[str, ...]] = {
    "mergekit.architecture": ("arch_info_for_config",),
    "mergekit.architecture.auto": ("get_model_tensor_names",),
    "mergekit.architecture.conversion": (
        "can_convert_checkpoint_keys",
        "convert_checkpoint_tensors",
    ),
    "mergekit.card": ("is_hf",),
    "mergekit.common": ("ModelReference", "dtype_from_name", "get_auto_cls"),
    "mergekit.config": (
        "ConditionalParameter",
        "InputModelDefinition",
        "InputSliceDefinition",
        "MergeConfiguration",
        "OutputSliceDefinition",
        "ParameterSetting",
        "ScalarParameter",
    ),
    "mergekit.io.lazy_tensor_loader": ("LazyTensorLoader", "ShardedTensorIndex"),
    "mergekit.io.tasks": ("LoaderCache", "SaveTensor"),
    "mergekit.merge": ("run_merge",),
    "mergekit.merge_methods.base": (
        "BasePolicy",
        "BatchOptions",
        "GroupMergeMethod",
        "InputContract",
        "MergeMethod",
        "MergeMethodSpec",
        "ParameterScope",
        "ParameterSpec",
        "PerInputValues",
        "TensorGroup",
    ),
    "mergekit.merge_methods.generalized_task_arithmetic": ("GeneralizedTaskArithmeticMerge",),
    "mergekit.merge_methods.registry": ("_METHODS", "get", "registered_methods"),
    "mergekit.merge_methods.task_adapter": ("ExecuteMergeMethodTask",),
    "mergekit.options": ("MergeOptions",),
    "mergekit.sparsify": ("SparsificationMethod", "sparsify"),
}
"""For each module, what it must have once it is imported."""

_misfits: list[str] = []


def has_names(module: ModuleType) -> bool:
    """Whether a module has all that we rely on; if not, `refuse` with the names."""
    missing = [name for name in NAMES[module.__name__] if not hasattr(module, name)]
    if missing:
        refuse(f"{module.__name__} has no {', '.join(missing)}")
    return not missing


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
