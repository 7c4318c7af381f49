"""How many models a method merges, each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mergekit.common import ModelReference
from mergekit.config import (
    InputModelDefinition,
    InputSliceDefinition,
    MergeConfiguration,
    OutputSliceDefinition,
)
from mergekit.merge_methods.base import BasePolicy, MergeMethod

from mergekit_spectral.errors import first_line
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.text import Key

Definition = InputModelDefinition | InputSliceDefinition
Group = tuple[Key, Sequence[Definition], ModelReference | None]


def check_inputs(config: MergeConfiguration, method: MergeMethod, findings: Findings) -> None:
    """Check the models that are merged with one another against what the method takes."""
    for key, inputs, base in _groups(config):
        models = [each.model for each in inputs]
        twice = [n for n, model in enumerate(models) if model in models[:n]]
        for number in twice:
            findings.error(
                f"{models[number]} stands twice among what is merged; name it once, with the sum "
                "of its weights.",
                (*key, number, "model"),
            )
        if twice or (base is None and method.spec.contract.base == BasePolicy.REQUIRED):
            continue
        # The planner of mergekit adds the base to models, and to slices nothing.
        added = base is not None and base not in models and key[-1] == "models"
        try:
            method.spec.contract.validate_ids([*models, base] if added else models, base)
        except ValueError as error:
            findings.error(
                f"{method.spec.name} cannot merge {len(models)} model{'s' * (len(models) > 1)}"
                f"{' and the base' if added else ''}: {first_line(error)}.",
                key,
            )


def _groups(config: MergeConfiguration) -> Iterator[Group]:
    """Yield what is merged with one another: where it stands, the models, and their base."""
    if config.models:
        yield ("models",), config.models, config.base_model
    yield from _of_slices(config.slices, config, ("slices",))
    for name, module in (config.modules or {}).items():
        if module.models:
            yield ("modules", name, "models"), module.models, config.base_model
        yield from _of_slices(module.slices, config, ("modules", name, "slices"))


def _of_slices(
    slices: Sequence[OutputSliceDefinition] | None, config: MergeConfiguration, key: Key
) -> Iterator[Group]:
    for number, part in enumerate(slices or []):
        yield (*key, number, "sources"), part.sources, part.base_model or config.base_model
