"""Tensors that models lack, or have in another shape, and parameters that fail at one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from mergekit.common import ModelReference
from mergekit.merge_methods.base import MergeMethod, OptionalTensorPolicy
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

from mergekit_spectral.checking.parameters import filters, places
from mergekit_spectral.host.dense_inputs import buffers_differ
from mergekit_spectral.host.left_out import LeftOut, left_out
from mergekit_spectral.host.mergeable import differs
from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.methods import STAR, KnOTS
from mergekit_spectral.recipe.findings import Findings


def check_tensors(merge: PlannedMerge, findings: Findings) -> None:
    """Check all tensors of a plan."""
    _check_presence(merge, findings)
    _check_shapes(merge, findings)
    _check_buffers(merge, findings)
    _check_left_out(merge, findings)
    _check_filters(merge, findings)
    _check_della(merge, findings)
    _check_weights(merge, findings)


def listed(names: Sequence[str]) -> str:
    """Return one name, or the first and how many there are."""
    return names[0] if len(names) == 1 else f"{len(names)} tensors, the first is {names[0]}"


def _check_presence(merge: PlannedMerge, findings: Findings) -> None:
    required: dict[ModelReference, list[str]] = defaultdict(list)
    optional: dict[ModelReference, list[str]] = defaultdict(list)
    for tensor in merge.tensors:
        lacking = [model for model, value in tensor.inputs.items() if value is None]
        spared = tensor.optional and _does_without(merge.method, tensor)
        for model in lacking:
            (optional if spared else required)[model].append(tensor.names[model])
    for model, names in required.items():
        findings.error(
            f"{model} lacks {listed(names)}, which the merge needs; copy or download it "
            "again, or take another base.",
            merge.named[model],
        )
    for model, names in optional.items():
        findings.warning(
            f"{model} lacks {listed(names)}, which other inputs have; they are merged without it.",
            merge.named[model],
        )


def _does_without(method: MergeMethod, tensor: PlannedTensor) -> bool:
    """Tell whether mergekit merges an optional tensor that some models lack."""
    there = [model for model, value in tensor.inputs.items() if value is not None]
    policy = method.spec.optional_tensor_policy
    passed = {
        OptionalTensorPolicy.PASSTHROUGH_SINGLETON: len(there) == 1,
        OptionalTensorPolicy.PASSTHROUGH_BASE_SINGLETON: there == [tensor.base_model],
        OptionalTensorPolicy.BASE_OR_SKIP: len(there) < method.spec.contract.min_inputs,
    }
    if passed.get(policy):
        return True
    try:
        method.validate_inputs(there, tensor.base_model)
    except ValueError:
        return False
    return True


def _check_shapes(merge: PlannedMerge, findings: Findings) -> None:
    vocabularies: dict[ModelReference, int] = {}
    differing: dict[tuple[ModelReference, ModelReference], list[str]] = defaultdict(list)
    for tensor in merge.tensors:
        shapes = {m: tuple(value.shape) for m, value in tensor.inputs.items() if value is not None}
        if not shapes or len(set(shapes.values())) == 1:
            continue
        first = tensor.base_model if tensor.base_model in shapes else next(iter(shapes))
        for model, shape in shapes.items():
            if shape == shapes[first]:
                continue
            if tensor.vocabulary and shape[1:] == shapes[first][1:]:
                if not tensor.remade:
                    vocabularies |= {first: shapes[first][0], model: shape[0]}
            else:
                there = f"{tensor.name} as {list(shape)} against {list(shapes[first])}"
                differing[model, first].append(there)
    if vocabularies:
        sizes = ", ".join(f"{size} tokens in {model}" for model, size in vocabularies.items())
        findings.error(
            f"the vocabularies differ, {sizes}; set `tokenizer: {{source: union}}`, or `base`, to "
            "match tokens by their text.",
            merge.named[next(reversed(vocabularies))],
        )
    for (model, first), names in differing.items():
        findings.error(
            f"{model} has other shapes than {first}: {listed(names)}; only models of one size can "
            "be merged.",
            merge.named[model],
        )


def _check_buffers(merge: PlannedMerge, findings: Findings) -> None:
    """Check that models have the same buffers, by their values: there are few, and small ones."""
    for tensor in merge.tensors:
        dtypes = {
            model: merge.models[model].headers[name][1]
            for model, name in tensor.names.items()
            if name in merge.models[model].headers
        }
        owner = next((m for m, dtype in dtypes.items() if not dtype.is_floating_point), None)
        if owner is None:
            continue
        own = merge.models[owner].checkpoint.read(tensor.names[owner])
        for model in dtypes:
            if differs(own, merge.models[model].checkpoint.read(tensor.names[model])):
                message = buffers_differ(tensor.name, owner, own.dtype, model)
                findings.error(message, merge.named[owner])
                break


def _check_left_out(merge: PlannedMerge, findings: Findings) -> None:
    models, config = merge.models, merge.config
    base = config.base_model if config.base_model in models else None
    some_layers = bool(config.slices) or any(m.slices for m in (config.modules or {}).values())
    missing = {
        reference: left_out(model.headers, merge.read[reference], model.config, some_layers)
        for reference, model in models.items()
    }
    for reference, lacking in missing.items():
        others = [other.headers for r, other in models.items() if r != reference]
        # The merged model has the configuration of the base, or of any if there is none.
        lost = [
            name
            for name in lacking.needed
            if reference == base or (base is None and all(name in headers for headers in others))
        ]
        # Whole modules are left out by recipes that name modules.
        if lost and not config.modules:
            told = LeftOut(lost, ()).sentence(reference, len(models[reference].headers))
            findings.error(f"{told}.", merge.named[reference])
            if base is None:
                return
        unlike = [
            name
            for name in (*lacking.needed, *lacking.ignored)
            if name not in lost and not any(name in headers for headers in others)
        ]
        if unlike and others:
            findings.warning(
                f"{reference} alone has {listed(unlike)}, which the merge leaves out.",
                merge.named[reference],
            )


def _check_filters(merge: PlannedMerge, findings: Findings) -> None:
    names = {name for tensor in merge.tensors for name in (tensor.name, *tensor.names.values())}
    for key, text in filters(merge.config):
        if not any(text in name for name in names):
            findings.warning(
                f"the filter {text!r} is in no tensor's name, so its value is never used; names "
                f"are like {next(iter(sorted(n for n in names if '.layers.' in n)), min(names))}.",
                key,
            )


def _check_della(merge: PlannedMerge, findings: Findings) -> None:
    for tensor in merge.tensors:
        for model, values in tensor.per_input.items():
            density, epsilon = values.get("density"), values.get("epsilon")
            if density is None or epsilon is None or not 0 < density < 1:
                continue
            if density + epsilon >= 1 or density - epsilon <= 0:
                findings.error(
                    f"{merge.method.spec.name}: density ± epsilon must lie between 0 and 1, but of "
                    f"{model} they are {density:g} and {epsilon:g} at {tensor.name}.",
                    next(places(merge.config, "density", model), ()),
                )
                return


def _check_weights(merge: PlannedMerge, findings: Findings) -> None:
    """Warn of weights that cancel, under methods that divide by their sum."""
    method = merge.method
    inner = method.inner if isinstance(method, KnOTS) else method
    plain = isinstance(method, STAR) or method.spec.name == "linear"
    if isinstance(inner, GeneralizedTaskArithmeticMerge):
        plain = inner.consensus_method is None
    for tensor in merge.tensors if plain else ():
        inputs = [model for model in tensor.inputs if "weight" in tensor.per_input.get(model, {})]
        weights = [tensor.per_input[model]["weight"] for model in inputs]
        size = sum(map(abs, weights))
        if tensor.shared.get("normalize") and weights and abs(sum(weights)) <= 1e-8 * size:
            result = (
                "linear divides by zero" if method.spec.name == "linear" else "they are only added"
            )
            findings.warning(
                f"the weights of the inputs sum to zero at {tensor.name}, so there is no mean: "
                f"{result}; set `normalize: false` if a sum is meant.",
                next(places(merge.config, "weight", inputs[0]), ()),
            )
            return
