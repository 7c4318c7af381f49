"""Check a whole recipe for one of our methods, before any model is touched.

mergekit resolves parameters tensor by tensor, after it has opened the models and, for LoRA inputs,
written merged copies of them. A value that is out of range is better refused before that, also
where a filter or a gradient hides it from the first tensors.
"""

from __future__ import annotations

from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import MergeMethod, ParameterScope, ParameterSpec

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.mergeable import wrong_dtypes
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.recipe.sections import Section, scalars, sections


def find_method(name: str) -> MergeMethod | None:
    """Return the merge method of a name; None if there is none."""
    return next((method for method in registered_methods() if method.spec.name == name), None)


def find_spectral_method(name: str) -> SpectralMethod:
    """Return the method of a name, for a merge into an adapter.

    Raises:
        MergeError: if there is none, or it is one of mergekit's own.
    """
    method = find_method(name)
    if not isinstance(method, SpectralMethod):
        own = (each for each in registered_methods() if isinstance(each, SpectralMethod))
        raise MergeError(
            f"The merge method {name} cannot merge into an adapter; use one of "
            f"{', '.join(each.spec.name for each in own)}."
        )
    return method


def has_no_effect_on_base(section: Section, parameter: ParameterSpec) -> bool:
    """Return whether a section is the base model's and a parameter only has values for inputs."""
    return section.of_base and parameter.scope == ParameterScope.NON_BASE


def require_valid_recipe(config: MergeConfiguration, method: SpectralMethod) -> None:
    """Check a recipe's dtypes, that every merge has a base and every parameter a valid value.

    Args:
        config: the recipe as written, or as mergekit's planner normalized it.
        method: the recipe's merge method.

    Raises:
        MergeError: naming the method, the key and, for a value, the valid range.
    """
    for _, message in wrong_dtypes(config):
        raise MergeError(message)
    for section in sections(config):
        if section.model is not None:
            method.require_base(section.base_model)
        for parameter in method.spec.parameters:
            settings = section.settings or {}
            if parameter.name in settings and not has_no_effect_on_base(section, parameter):
                for value in scalars(settings[parameter.name]):
                    parameter.validate(value)
