"""Check for tensors that models lack, and for tensors that the merge leaves out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from mergekit.common import ModelReference
from mergekit.merge_methods.base import MergeMethod, OptionalTensorPolicy

from mergekit_spectral.checking.shapes import count_names
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.plan import PlannedTensor
from mergekit_spectral.host.unread_weights import UnreadWeights, find_unread_weights
from mergekit_spectral.recipe.findings import Finding, error, warning


def check_missing_tensors(subject: Subject) -> Iterator[Finding]:
    """Check that models have the tensors that the plan reads."""
    merge, named = subject.planned, subject.recipe.references
    required: dict[ModelReference, list[str]] = defaultdict(list)
    optional: dict[ModelReference, list[str]] = defaultdict(list)
    for tensor in merge.tensors:
        lacking = [model for model, value in tensor.inputs.items() if value is None]
        spared = tensor.optional and _merges_without(merge.method, tensor)
        for model in lacking:
            (optional if spared else required)[model].append(tensor.names[model])
    for model, names in required.items():
        yield error(
            f"{model} lacks {count_names(names)}, which the merge needs; copy or download it "
            "again, or take another base.",
            named[model],
        )
    for model, names in optional.items():
        yield warning(
            f"{model} lacks {count_names(names)}, which other inputs have; they are merged "
            "without it.",
            named[model],
        )


def _merges_without(method: MergeMethod, tensor: PlannedTensor) -> bool:
    """Return whether mergekit merges an optional tensor that some models lack."""
    available = [model for model, value in tensor.inputs.items() if value is not None]
    policy = method.spec.optional_tensor_policy
    passed = {
        OptionalTensorPolicy.PASSTHROUGH_SINGLETON: len(available) == 1,
        OptionalTensorPolicy.PASSTHROUGH_BASE_SINGLETON: available == [tensor.base_model],
        OptionalTensorPolicy.BASE_OR_SKIP: len(available) < method.spec.contract.min_inputs,
    }
    if passed.get(policy):
        return True
    try:
        method.validate_inputs(available, tensor.base_model)
    except ValueError:
        return False
    return True


def check_left_out(subject: Subject) -> Iterator[Finding]:
    """Check that the plan has all weights of the model whose configuration the merged model gets.

    Tensors that one input alone has are reported too.
    """
    merge, config, named = subject.planned, subject.recipe.config, subject.recipe.references
    base = config.base_model
    some_layers = any(group.is_slice for group in subject.recipe.groups)
    missing = {
        reference: find_unread_weights(
            model.headers, merge.read[reference], model.config, some_layers
        )
        for reference, model in merge.models.items()
    }
    for reference, lacking in missing.items():
        others = [other.headers for r, other in merge.models.items() if r != reference]
        # The merged model has the configuration of the base, or of any if there is none.
        lost = [
            name
            for name in lacking.needed
            if reference == base or (base is None and all(name in headers for headers in others))
            # Of slices of several models, the last one's gives the head, for instance.
            if not any(name in names for names in merge.read.values())
        ]
        # Recipes that name modules leave out whole modules deliberately.
        if lost and not config.modules:
            count = len(merge.models[reference].headers)
            yield error(f"{UnreadWeights(lost, ()).sentence(reference, count)}.", named[reference])
            if base is None:
                return
        unlike = [
            name
            for name in (*lacking.needed, *lacking.ignored)
            if name not in lost and not any(name in headers for headers in others)
        ]
        if unlike and others:
            yield warning(
                f"only {reference} has {count_names(unlike)}, which the merge leaves out.",
                named[reference],
            )
