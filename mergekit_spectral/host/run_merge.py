"""What happens around mergekit's `run_merge` for recipes that name one of our methods.

At the first such merge, `SaveTensor.execute` is replaced for the rest of the process, besides what
`model_card` replaces. For merges with other methods it does what it did before.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mergekit import merge_methods
from mergekit.common import dtype_from_name
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import SaveTensor
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.options import MergeOptions
from torch import Tensor
from tqdm import tqdm

from mergekit_spectral.host.dense_inputs import keep_in_main_memory, lend_weight_loaders
from mergekit_spectral.host.loaders import lend_loaders
from mergekit_spectral.host.lora_inputs import read_adapters_in_factors
from mergekit_spectral.host.model_card import cards_that_others_can_use
from mergekit_spectral.host.recipe_check import require_valid_recipe
from mergekit_spectral.host.unread_weights import warn_of_unread_weights
from mergekit_spectral.methods import MergeError, SpectralMethod
from mergekit_spectral.methods.tally import Tally, add_saved, tally

Save = Callable[[Any, Any, Tensor | None], None]


@contextmanager
def spectral_merge(
    method: SpectralMethod,
    config: MergeConfiguration,
    options: MergeOptions,
    out: str | None = None,
) -> Iterator[None]:
    """Check a recipe, then have mergekit run it in this context with our loaders for its inputs.

    At the end of a whole merge, a line says how much was merged how, unless mergekit is to be
    quiet.

    Args:
        method: the recipe's merge method.
        config: the recipe.
        options: the options of the merge.
        out: folder of the merged model; None if only some of its tensors are merged.

    Raises:
        MergeError: if the recipe or an input is wrong.
    """
    start = time.monotonic()
    require_valid_recipe(config, method)
    watch_saved_tensors()
    try:
        with (
            cards_that_others_can_use(),
            lend_merge_loaders(config, options, whole=out is not None),
            tally() as counted,
        ):
            yield
    except ValueError as error:
        if message := _name_models_of_shapes(str(error), config):
            raise MergeError(f"{config.merge_method}: {message}") from None
        raise
    if out is not None and not options.quiet:
        _print_summary(method, counted, out, time.monotonic() - start)


def _print_summary(method: SpectralMethod, counted: Tally, out: str, seconds: float) -> None:
    line = f"Merged by {method.spec.name} into {out} in {seconds:.1f} s: {counted.counts()}."
    # As mergekit's bars, of which `mergekit-multi` still shows one.
    tqdm.write(line, file=sys.stderr)


@contextmanager
def lend_merge_loaders(
    config: MergeConfiguration, options: MergeOptions, whole: bool = True
) -> Iterator[None]:
    """Have mergekit read a recipe's models through our loaders within this context.

    They refuse tensors that are not weights, read adapters in factors and, if the merge runs on a
    GPU, leave dense inputs in main memory. At the end of a whole merge, a warning is logged if it
    has not read all weights of the base.

    Raises:
        MergeError: an input is wrong.
    """
    with lend_loaders(options) as table:
        weights = lend_weight_loaders(config, table)
        read_adapters_in_factors(config, options, table)
        keep_in_main_memory(config, options, table)
        # mergekit changes the recipe's object while it plans.
        base = config.base_model
        some_layers, some_modules = bool(config.slices), bool(config.modules)
        yield
        if whole and base is not None and base in weights and not some_modules:
            warn_of_unread_weights(base, weights[base], some_layers, options.trust_remote_code)


def _name_models_of_shapes(message: str, config: MergeConfiguration) -> str | None:
    """Return mergekit's message on shapes with the models' names, which it lacks.

    Returns:
        None if it is a different message, or the recipe does not show which model has which shape.
    """
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


def watch_saved_tensors() -> None:
    """Count the tensors that are saved, and refuse those that ``out_dtype`` has no range for.

    A method does not see ``out_dtype``. mergekit casts to it later, and writes values that became
    infinite. Calling this again does nothing. It is not undone after a merge, because another
    thread may be merging.
    """
    if not hasattr(SaveTensor.execute, "watches"):
        SaveTensor.execute = _watch(SaveTensor.execute)  # type: ignore[method-assign, assignment]


def _watch(save: Save) -> Save:
    @functools.wraps(save)
    def execute(self: Any, writer: Any, tensor: Tensor | None) -> None:
        dtype = dtype_from_name(self.dtype)
        task = self.tensor_task
        if tensor is not None and isinstance(task, ExecuteMergeMethodTask):
            method = merge_methods.get(task.method_name)
            if isinstance(method, SpectralMethod):
                if dtype:
                    tensor = method.rounded(tensor, dtype, self.tensor_name)
                add_saved(task.output_weight.name)
        save(self, writer, tensor)

    execute.watches = True  # type: ignore[attr-defined]
    return execute
