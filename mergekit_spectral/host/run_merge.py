"""What happens around mergekit's `run_merge` for recipes that name one of our methods."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions

from mergekit_spectral.host.dense_inputs import dense_inputs_in_main_memory, weights_only
from mergekit_spectral.host.local_names import local_folders_are_no_hub_ids
from mergekit_spectral.host.lora_inputs import factored_lora_inputs
from mergekit_spectral.host.output_range import check_range_of_saved_tensors
from mergekit_spectral.methods import MergeError, SpectralMethod
from mergekit_spectral.recipe.sections import check_recipe


@contextmanager
def spectral_merge(
    method: SpectralMethod, config: MergeConfiguration, options: MergeOptions
) -> Iterator[None]:
    """Check a recipe, then have mergekit run it in this context with our loaders for its inputs.

    Args:
        method: the recipe's merge method.
        config: the recipe.
        options: the options of the merge.

    Raises:
        MergeError: if the recipe or an input is wrong.
    """
    check_recipe(config, method)
    check_range_of_saved_tensors()
    try:
        with (
            local_folders_are_no_hub_ids(),
            weights_only(config, options),
            factored_lora_inputs(config, options),
            dense_inputs_in_main_memory(config, options),
        ):
            yield
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
