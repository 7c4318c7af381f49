"""Check a whole recipe before any model is touched.

mergekit resolves parameters tensor by tensor, after it has opened the models and, for LoRA inputs,
written merged copies of them. A value that is out of range is better refused before that, also
where a filter or a gradient hides it from the first tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mergekit.common import ModelReference
from mergekit.config import (
    ConditionalParameter,
    InputModelDefinition,
    InputSliceDefinition,
    MergeConfiguration,
    OutputSliceDefinition,
    ParameterSetting,
    ScalarParameter,
)
from mergekit.merge_methods.base import ParameterScope

from mergekit_spectral.methods import SpectralMethod

Settings = dict[str, ParameterSetting] | None


@dataclass(frozen=True)
class Section:
    """One ``parameters:`` section of a recipe; `model` is set if it belongs to one input."""

    settings: Settings
    base_model: ModelReference | None
    model: ModelReference | None = None


def check_recipe(config: MergeConfiguration, method: SpectralMethod) -> None:
    """Check that every merge in a recipe has a base and every parameter a valid value.

    Args:
        config: the recipe as written, or as mergekit's planner normalized it.
        method: the recipe's merge method.

    Raises:
        MergeError: naming the method, the key and, for a value, the valid range.
    """
    for section in _sections(config):
        if section.model is not None:
            method.require_base(section.base_model)
        for parameter in method.spec.parameters:
            of_base = section.model is not None and section.model == section.base_model
            unused = of_base and parameter.scope == ParameterScope.NON_BASE
            if section.settings and parameter.name in section.settings and not unused:
                for value in _values(section.settings[parameter.name]):
                    parameter.validate(value)


def base_models(config: MergeConfiguration) -> set[ModelReference]:
    """Return the models that inputs of a recipe are compared to."""
    return {section.base_model for section in _sections(config) if section.base_model is not None}


def _sections(config: MergeConfiguration) -> Iterator[Section]:
    yield Section(config.parameters, config.base_model)
    yield from _of_models(config.models, config.base_model)
    yield from _of_slices(config.slices, config.base_model)
    for module in (config.modules or {}).values():
        yield Section(module.parameters, config.base_model)
        yield from _of_models(module.models, config.base_model)
        yield from _of_slices(module.slices, config.base_model)


def _of_models(
    models: list[InputModelDefinition] | list[InputSliceDefinition] | None,
    base_model: ModelReference | None,
) -> Iterator[Section]:
    for model in models or []:
        yield Section(model.parameters, base_model, model.model)


def _of_slices(
    slices: list[OutputSliceDefinition] | None, base_model: ModelReference | None
) -> Iterator[Section]:
    for output_slice in slices or []:
        base = output_slice.base_model or base_model
        yield Section(output_slice.parameters, base)
        yield from _of_models(output_slice.sources, base)


def _values(setting: ParameterSetting) -> Iterator[ScalarParameter]:
    """Yield every scalar in a setting: of filters, of gradients, or itself."""
    if isinstance(setting, ConditionalParameter):
        yield from _values(setting.value)
    elif isinstance(setting, list):
        for part in setting:
            yield from _values(part)
    else:
        yield setting
