"""Compute what a merge must write, weight by weight, from the definitions in float64."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import reference
import torch
from mergekit import merge_methods
from mergekit.merge_methods.base import TensorGroup
from safetensors.torch import load_file
from support.checkpoints import Family, tensors

VOCABULARY = re.compile(r"embed_tokens|lm_head|shared\.|word_embeddings|\.wte\.")
ACCURACY = 1e-5
"""Maximum error before the result is rounded to the output's dtype, relative to the delta's norm.

For large matrices the package promises 1e-3; the small matrices of tests are much more exact."""

Weights = Mapping[str, torch.Tensor]
Parameters = Callable[[str], dict[str, Any]]


def assert_merged(
    out: Path,
    family: Family,
    method: str,
    parameters: dict[str, Any] | Parameters | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Compare every tensor in the folder `out` with its definition.

    Args:
        out: folder of the merged model.
        family: the base and the inputs.
        method: name of the method.
        parameters: arguments of the function in `reference`, such as `weights` and `lam`, with
            lists in the order of the inputs; or a function that returns them for a tensor's name.
        dtype: the recipe's `dtype`.
    """
    assert_weights_merged(
        tensors(out),
        tensors(family.base),
        [tensors(path) for path in family.tuned],
        method,
        parameters,
        dtype,
    )


def assert_weights_merged(
    merged: Weights,
    base: Weights,
    tuned: list[Weights],
    method: str,
    parameters: dict[str, Any] | Parameters | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Compare every tensor of `merged` with its definition; see `assert_merged`."""
    assert merged.keys() == base.keys()
    for name, tensor in merged.items():
        start, *others = (_exact(weights[name], dtype) for weights in (base, *tuned))
        chosen = parameters(name) if callable(parameters) else dict(parameters or {})
        delta = merged_delta(name, [other - start for other in others], method, **chosen)
        assert_close(name, tensor, start, delta)


def assert_close(name: str, tensor: torch.Tensor, base: torch.Tensor, delta: torch.Tensor) -> None:
    """Check that `tensor` is base + delta, up to one rounding and a relative error `ACCURACY`."""
    wanted = base + delta
    rounding = torch.finfo(tensor.dtype).eps / 2 * wanted.abs()
    error = ((tensor.double() - wanted).abs() - rounding).clamp(min=0).norm()
    assert error <= ACCURACY * delta.norm(), f"{name}: {error:.2e} of {delta.norm():.2e}"


def merged_delta(
    name: str,
    deltas: list[torch.Tensor],
    method: str,
    embeddings: str = "elementwise",
    **parameters: Any,
) -> torch.Tensor:
    """Merge the float64 deltas of the weight `name` with the definition of `method`."""
    shape = deltas[0].shape
    if not any(delta.any() for delta in deltas):
        return torch.zeros(shape, dtype=torch.float64)
    if len(shape) < 2 or (embeddings == "elementwise" and VOCABULARY.search(name)):
        return _of_entries(method, deltas, **parameters)
    if len(shape) == 2:
        return _of_matrices(method, deltas, **parameters)
    if len(shape) == 3:
        slices = zip(*deltas, strict=True)
        return torch.stack([_of_matrices(method, list(each), **parameters) for each in slices])
    flat = [delta.flatten(start_dim=1) for delta in deltas]
    return _of_matrices(method, flat, **parameters).view(shape)


def _of_matrices(method: str, deltas: list[torch.Tensor], **parameters: Any) -> torch.Tensor:
    if method in ("drm", "star", "iso", "tsvm", "actmat"):
        return reference.DEFINITIONS[method](deltas, **parameters)
    one_density = isinstance(parameters.get("density", 1.0), float)
    if method == "knots_ties" and one_density and all(delta.any() for delta in deltas):
        return reference.knots_ties(deltas, **parameters)
    return _knots(_inner(method), deltas, **parameters)


def _of_entries(method: str, deltas: list[torch.Tensor], **parameters: Any) -> torch.Tensor:
    for matrices_only in ("direction", "rank_tolerance", "rank", "eta", "flatten", "share"):
        parameters.pop(matrices_only, None)
    if method == "drm":
        parameters.pop("density", None)
        return reference.elementwise_drm(deltas, **parameters)
    if method in ("star", "iso", "tsvm", "actmat"):
        merged = _by_mergekit("task_arithmetic", deltas, **{"normalize": True, **parameters})
        # What adds matrices takes the mean of vectors, also with weights that are not divided.
        is_sum = method != "star" and not parameters.get("normalize", True)
        return merged / len(deltas) if is_sum else merged
    return _by_mergekit(_inner(method), deltas, **parameters)


def _inner(method: str) -> str:
    return "ties" if method == "knots" else method.removeprefix("knots_")


def _knots(
    inner: str, deltas: list[torch.Tensor], rank_tolerance: float = 1e-5, **parameters: Any
) -> torch.Tensor:
    """Merge by KnOTS, horizontally, with any of mergekit's methods as the inner method.

    The coordinates diag(s)·V_tᵀ are computed as Uᵀ·D_t. If an input does not change the weight,
    they are then exactly zero, and there is no rounding noise that could vote.
    """
    U, S, _Vt = torch.linalg.svd(torch.cat(deltas, dim=1), full_matrices=False)
    basis = U[:, rank_tolerance * S[0] < S]
    return basis @ _by_mergekit(inner, [basis.T @ delta for delta in deltas], **parameters)


def _by_mergekit(
    method: str,
    deltas: list[torch.Tensor],
    weights: list[float] | None = None,
    lam: float = 1.0,
    **parameters: Any,
) -> torch.Tensor:
    """Merge with one of mergekit's methods, in float64, on a base of zeros.

    Where votes cancel, mergekit's TIES elects the positive sign. This package elects no sign, so
    the deltas are set to zero there before mergekit merges them.
    """
    base = torch.zeros_like(deltas[0])
    if method == "ties":
        density = parameters.pop("density", 1.0)
        densities = density if isinstance(density, list) else [density] * len(deltas)
        deltas = [reference.trim(d, p) for d, p in zip(deltas, densities, strict=True)]
        votes = [w * d for w, d in zip(weights or [1.0] * len(deltas), deltas, strict=True)]
        deltas = [d.masked_fill(reference.cancel(votes), 0) for d in deltas]
    group = TensorGroup.from_tensors([base, *deltas], base_index=0)
    settings = {"weight": weights or 1.0, "lambda": lam, **parameters}
    return merge_methods.get(method)((group,), parameters=settings)[0]


def _exact(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Round as mergekit does when it reads a tensor, unless the tensor is in float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype or tensor.dtype).double()


def with_adapter(base: Weights, adapter: Path) -> Weights:
    """Add an adapter's updates B·A to the base's weights, in float64 and so without rounding."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    factors = load_file(adapter / "adapter_model.safetensors")
    weights = dict(base)
    for key, B in factors.items():
        if ".lora_B." in key:
            A = factors[key.replace(".lora_B.", ".lora_A.")]
            name = key.removeprefix("base_model.model.").replace(".lora_B", "")
            weights[name] = base[name].double() + scale * B.double() @ A.double()
    return weights
