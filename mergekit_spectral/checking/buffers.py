"""Buffers, which are copied and not merged, and so must be equal in all models."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit.io.lazy_tensor_loader import LazyTensorLoader
from torch import Tensor

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.dense_inputs import buffers_differ
from mergekit_spectral.host.mergeable import differs
from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.recipe.findings import Finding, error


def check_buffers(subject: Subject) -> Iterator[Finding]:
    """Check that models have the same buffers. Their values are read: they are few and small."""
    models = subject.models
    for tensor in subject.planned.tensors:
        dtypes = {
            model: models[model].headers[name][1]
            for model, name in tensor.names.items()
            if name in models[model].headers
        }
        owner = next((m for m, dtype in dtypes.items() if not dtype.is_floating_point), None)
        if owner is None:
            continue
        own = _read(models[owner], tensor.names[owner])
        for model in dtypes:
            if differs(own, _read(models[model], tensor.names[model])):
                message = buffers_differ(tensor.name, owner, own.dtype, model)
                yield error(message, subject.recipe.references[owner])
                break


def _read(model: CheckedModel, name: str) -> Tensor:
    tensor = LazyTensorLoader(model.checkpoint.index).get_tensor(name)
    assert tensor is not None  # the loader raises if there is none
    return tensor
