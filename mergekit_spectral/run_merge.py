"""What happens around mergekit's `run_merge` for recipes that name one of our methods."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt
from mergekit import merge_methods
from mergekit.architecture import auto
from mergekit.config import MergeConfiguration

from mergekit_spectral.dense_inputs import dense_inputs_in_main_memory, weights_only
from mergekit_spectral.local_names import local_folders_are_no_hub_ids
from mergekit_spectral.lora_inputs import factored_lora_inputs, name_tensors_of_adapted_models
from mergekit_spectral.methods import MergeError, SpectralMethod
from mergekit_spectral.output_range import check_range_of_saved_tensors
from mergekit_spectral.recipe_check import check_recipe


def wrap_run_merge(module: ModuleType) -> None:
    """Wrap ``module.run_merge``; importing the name from there gives the wrapped function.

    Args:
        module: the module ``mergekit.merge``.

    Raises:
        TypeError: if its `run_merge` takes other parameters than we know.
    """
    missing = {"merge_config", "options"} - inspect.signature(module.run_merge).parameters.keys()
    if missing:
        raise TypeError(f"run_merge has no parameter {' and '.join(sorted(missing))}")
    wrapt.wrap_function_wrapper(module, "run_merge", _run_merge)
    name_tensors_of_adapted_models(auto)


def _run_merge(
    run_merge: Callable[..., None], _instance: None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    given = inspect.signature(run_merge).bind(*args, **kwargs).arguments
    config, options = given["merge_config"], given["options"]
    method = merge_methods.get(config.merge_method)
    if not isinstance(method, SpectralMethod):
        return run_merge(*args, **kwargs)
    check_recipe(config, method)
    check_range_of_saved_tensors()
    try:
        with (
            local_folders_are_no_hub_ids(),
            weights_only(config, options),
            factored_lora_inputs(config, options),
            dense_inputs_in_main_memory(config, options),
        ):
            return run_merge(*args, **kwargs)
    except ValueError as error:
        if told := _shapes_told_by_model(str(error), config):
            raise MergeError(f"{config.merge_method}: {told}") from None
        raise


def _shapes_told_by_model(message: str, config: MergeConfiguration) -> str | None:
    """Say whose shapes differ where mergekit's message only lists them in the recipe's order."""
    mismatch = re.match(r"Tensor size mismatch for (\S+): \[(.*?)\]\.(.*)", message)
    if mismatch is None:
        return None
    tensor, listed, hint = mismatch.groups()
    shapes = re.findall(r"\([\d, ]*\)", listed)
    orders = {
        tuple(str(source.model) for source in output_slice.sources)
        for module in (config.modules or {}).values()
        for output_slice in module.slices or []
        if len(output_slice.sources) == len(shapes)
    }
    if len(orders) != 1:
        return None
    pairs = ", ".join(f"{s} in {m}" for s, m in zip(shapes, *orders, strict=True))
    advice = hint.strip() or "Merge only models of one architecture and size."
    return f"tensor {tensor} must have one shape in all inputs, but has {pairs}. {advice}"
