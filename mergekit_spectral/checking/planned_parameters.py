"""Check parameters whose faults show only at the tensors that they apply to."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.methods.mergekits_own import costs_of
from mergekit_spectral.recipe.findings import Finding, error, warning
from mergekit_spectral.recipe.sections import filters, find_setting

CANCELS = 1e-8
"""Weights cancel if their sum is at most this share of the sum of their magnitudes."""


def check_filters(subject: Subject) -> Iterator[Finding]:
    """Warn of filters that match no tensor."""
    tensors = subject.planned.tensors
    names = {name for tensor in tensors for name in (tensor.name, *tensor.names.values())}
    for key, text in filters(subject.recipe.sections):
        if not any(text in name for name in names):
            example = next(iter(sorted(n for n in names if ".layers." in n)), min(names))
            yield warning(
                f"the filter {text!r} matches no tensor's name, so its value is never used; a name "
                f"must contain the filter, and one of the names is {example}.",
                key,
            )


def check_della(subject: Subject) -> Iterator[Finding]:
    """Check that DELLA's chances to keep an entry are between 0 and 1 at every tensor."""
    for tensor in subject.planned.tensors:
        for model, values in tensor.per_input.items():
            density, epsilon = values.get("density"), values.get("epsilon")
            if density is None or epsilon is None or not 0 < density < 1:
                continue
            if density + epsilon >= 1 or density - epsilon <= 0:
                yield error(
                    f"{subject.recipe.config.merge_method}: density ± epsilon must be between 0 "
                    f"and 1, but {model} has {density:g} and {epsilon:g} at {tensor.name}.",
                    find_setting(subject.recipe.sections, "density", model),
                )
                return


def check_weights(subject: Subject) -> Iterator[Finding]:
    """Warn of weights that cancel, if the method divides by their sum."""
    merge = subject.planned
    for tensor in merge.tensors if costs_of(merge.method).averages_all else ():
        inputs = [model for model in tensor.inputs if "weight" in tensor.per_input.get(model, {})]
        weights = [tensor.per_input[model]["weight"] for model in inputs]
        size = sum(map(abs, weights))
        if tensor.shared.get("normalize") and weights and abs(sum(weights)) <= CANCELS * size:
            divides = subject.recipe.config.merge_method == "linear"
            result = "linear divides by zero" if divides else "they are only added"
            yield warning(
                f"the weights of the inputs sum to zero at {tensor.name}, so there is no mean: "
                f"{result}; set `normalize: false` if you want a sum.",
                find_setting(subject.recipe.sections, "weight", inputs[0]),
            )
            return
