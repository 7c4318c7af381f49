"""Check a whole recipe for one of our methods, before any model is touched.

mergekit resolves parameters tensor by tensor, after it has opened the models and, for LoRA inputs,
written merged copies of them. A value that is out of range is better refused before that, also
where a filter or a gradient hides it from the first tensors.
"""

from __future__ import annotations

from mergekit.config import MergeConfiguration
from mergekit.merge_methods.base import ParameterScope

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.mergeable import wrong_dtypes
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.recipe.sections import scalars, sections


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
            unused = section.of_base and parameter.scope == ParameterScope.NON_BASE
            if section.settings and parameter.name in section.settings and not unused:
                for value in scalars(section.settings[parameter.name]):
                    parameter.validate(value)
