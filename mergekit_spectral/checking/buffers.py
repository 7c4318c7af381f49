"""Check that buffers, which are copied and not merged, are equal in all models."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.dense_inputs import buffers_differ
from mergekit_spectral.host.mergeable import differs
from mergekit_spectral.recipe.findings import Finding, error


def check_buffers(subject: Subject) -> Iterator[Finding]:
    """Check that models have the same buffers. Their values are read: they are few and small.

    Models whose values are on the Hub alone are left out.
    """
    models = {
        reference: model
        for reference, model in subject.models.items()
        if all(map(subject.hub.has_values, model.checkpoint.weights))
    }
    for tensor in subject.planned.tensors:
        dtypes = {
            model: models[model].headers[name][1]
            for model, name in tensor.names.items()
            if model in models and name in models[model].headers
        }
        owner = next((m for m, dtype in dtypes.items() if not dtype.is_floating_point), None)
        if owner is None:
            continue
        own = models[owner].checkpoint.read(tensor.names[owner])
        for model in dtypes:
            if differs(own, models[model].checkpoint.read(tensor.names[model])):
                message = buffers_differ(tensor.name, owner, own.dtype, model)
                yield error(message, subject.recipe.references[owner])
                break
