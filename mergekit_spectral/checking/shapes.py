"""Check that models have their tensors in the same shapes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mergekit.common import ModelReference

from mergekit_spectral.checking.cures import in_recipe
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.recipe.findings import Finding, error


def check_shapes(subject: Subject) -> Iterator[Finding]:
    """Check that all inputs of a tensor have one shape, or that mergekit matches their tokens."""
    named = subject.recipe.references
    vocabularies: dict[ModelReference, int] = {}
    differing: dict[tuple[ModelReference, ModelReference], list[str]] = defaultdict(list)
    for tensor in subject.planned.tensors:
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
                both = f"{tensor.name} as {list(shape)} against {list(shapes[first])}"
                differing[model, first].append(both)
    if vocabularies:
        sizes = ", ".join(f"{size} tokens in {model}" for model, size in vocabularies.items())
        yield error(
            f"the vocabularies differ, {sizes}; have mergekit match tokens by their text, for all "
            "models' tokens (`union`) or the base's (`base`).",
            named[next(reversed(vocabularies))],
            cure=in_recipe({"tokenizer": {"source": "union"}}),
        )
    for (model, first), names in differing.items():
        yield error(
            f"{model} has different shapes from {first}: {count_names(names)}; only models of the "
            "same size can be merged.",
            named[model],
        )


def count_names(names: Sequence[str]) -> str:
    """Return one name, or the number of names and the first."""
    return names[0] if len(names) == 1 else f"{len(names)} tensors, the first is {names[0]}"
