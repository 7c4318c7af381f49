"""Which tensors of a checkpoint are weights that can be merged, by their dtypes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from mergekit.common import dtype_from_name
from mergekit.config import MergeConfiguration
from torch import Tensor

from mergekit_spectral.adapters.stored_tensors import CODES
from mergekit_spectral.spectral import FLOATS, dtype_name

_UNQUANTIZED = "use the model before quantization, in float16 or bfloat16"


def wrong_dtypes(config: MergeConfiguration) -> Iterator[tuple[str, str]]:
    """Yield ``dtype`` and ``out_dtype`` if merged weights cannot have them, each with a sentence.

    mergekit accepts int64 too, which rounds every weight to a whole number.
    """
    for key, name in (("dtype", config.dtype), ("out_dtype", config.out_dtype)):
        try:
            dtype = dtype_from_name(name)
        except RuntimeError:
            valid = False
        else:
            valid = dtype is None or dtype in FLOATS
        if not valid:
            yield key, f"`{key}` must be float32, bfloat16, float16 or float64, got {name}."


def why_not_mergeable(
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    names: Iterable[str],
    converted: bool,
) -> str | None:
    """Say why a stored tensor cannot be merged, or None if it can.

    Integers and booleans that are not quantized weights are buffers. A buffer is copied if all
    models have the same.

    Args:
        name: the tensor's name.
        shape: the tensor's shape.
        dtype: the dtype that it is stored in.
        names: the names of all tensors of the checkpoint.
        converted: whether the recipe sets ``dtype``, so that mergekit converts what it loads.

    Returns:
        The end of a sentence that begins with the tensor.
    """
    if dtype in FLOATS:
        return None
    if dtype.is_floating_point:
        # Plain casts to 8 bits, without scales, are weights like those of 16 bits.
        if scale := _find_scale(name, names):
            return f"is quantized to {dtype_name(dtype)}, with its scale in {scale}; {_UNQUANTIZED}"
        if converted:
            return None
        return (
            f"is of {dtype_name(dtype)}, which has too few digits for a merged weight; set `dtype: "
            "bfloat16` in the recipe"
        )
    if dtype.is_complex:
        return f"is of {dtype_name(dtype)}; only real weights can be merged"
    if len(shape) == 2 and dtype in CODES:
        return (
            f"is of {dtype_name(dtype)}, so it seems to be quantized, and its values have no "
            f"meaning without their scales; {_UNQUANTIZED}"
        )
    return None


def is_quantized(name: str, dtype: torch.dtype, names: Iterable[str]) -> bool:
    """Return whether a tensor holds a weight's codes, whose scale is in a tensor beside it.

    Args:
        name: the tensor's name.
        dtype: the dtype that it is stored in.
        names: the names of all tensors of the checkpoint.
    """
    return dtype in CODES and _find_scale(name, names) is not None


def differs(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have different dtypes or values."""
    return one.dtype != other.dtype or not torch.equal(one, other)


def _find_scale(name: str, names: Iterable[str]) -> str | None:
    """Return the tensor that holds the scale of a weight, as in ``up_proj.weight_scale``."""
    module = name.rpartition(".")[0] + "."
    others = (other for other in names if other != name and other.startswith(module))
    return min((other for other in others if "scale" in other.removeprefix(module)), default=None)
