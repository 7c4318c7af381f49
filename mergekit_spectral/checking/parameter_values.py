"""Check for parameters that the method lacks, that have no effect at their place, or are wrong.

mergekit ignores the first two silently, and finds the last when it comes to the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from mergekit.config import ParameterSetting
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import MergeMethod, ParameterScope, ParameterSpec
from pydantic import ValidationError

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.recipe_check import has_no_effect_on_base
from mergekit_spectral.methods.parameters import in_words
from mergekit_spectral.recipe.findings import Finding, error, note, suggest_name, warning
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.recipe.sections import Section, scalars
from mergekit_spectral.recipe.text import Key


def check_parameters(subject: Subject) -> Iterator[Finding]:
    """Check the names, places and values of all parameters."""
    method = subject.method
    if method is None:
        return
    for section in subject.recipe.sections:
        for name, setting in (section.settings or {}).items():
            key = (*section.key, name)
            spec = next((p for p in method.spec.parameters if p.name == name), None)
            if spec is None:
                yield _unknown(name, method, key)
            elif unused := _unused(section, spec):
                yield warning(f"`{name}` has no effect here: {unused}", key)
            else:
                yield from _check_values(method, spec, setting, key)


def check_required_parameters(subject: Subject) -> Iterator[Finding]:
    """Check that parameters without a default have a value for every input."""
    for spec in subject.method.spec.parameters if subject.method else ():
        if spec.required:
            yield from _check_required(subject.recipe, spec)


def _check_required(recipe: Recipe, spec: ParameterSpec) -> Iterator[Finding]:
    shared = spec.scope == ParameterScope.SHARED
    for section in recipe.sections:
        if section.model is None or has_no_effect_on_base(section, spec):
            continue
        place = section.key[:-1]
        around = [one for one in recipe.sections if one.model is None and one.contains(place)]
        read = around if shared else [section, *around]
        if any(spec.name in (one.settings or {}) for one in read):
            continue
        need = f"{recipe.config.merge_method} needs a value of `{spec.name}`"
        if shared or not any(spec.name in (one.settings or {}) for one in recipe.sections):
            of_each = "" if shared else ", or of each model"
            yield error(f"{need}; set it under `parameters` of the whole recipe{of_each}.")
            return
        yield error(f"{need}, also for {section.model}.", place)


def _unknown(name: str, method: MergeMethod, key: Key) -> Finding:
    known = [parameter.name for parameter in method.spec.parameters]
    specs = [other.spec for other in registered_methods()]
    users = [spec.name for spec in specs if name in (p.name for p in spec.parameters)]
    if users:
        # As when one word of a recipe for TIES is changed.
        return note(
            f"{method.spec.name} has no parameter `{name}` and ignores it; {_some(users)} "
            f"{'has' if len(users) == 1 else 'have'} one.",
            key,
        )
    return warning(
        f"{method.spec.name} has no parameter `{name}`, and mergekit ignores it; "
        f"{suggest_name(name, known)}",
        key,
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _unused(section: Section, spec: ParameterSpec) -> str | None:
    """Return why mergekit never looks at a parameter in a section, or None if it does."""
    if section.model is not None and spec.scope == ParameterScope.SHARED:
        return (
            f"it holds for all inputs together, so set it under the `parameters` of the whole "
            f"recipe, not of {section.model}."
        )
    if has_no_effect_on_base(section, spec):
        return f"{section.model} is the base model, which the inputs are compared to."
    return None


def _check_values(
    method: MergeMethod, spec: ParameterSpec, setting: ParameterSetting, key: Key
) -> Iterator[Finding]:
    name = f"{method.spec.name}: parameter `{spec.name}`"
    values = list(scalars(setting))
    if not values:
        yield warning(f"{name} is an empty list, which mergekit takes as not set.", key)
    for value in values:
        try:
            valid = spec.validate(value)
        except MergeError as refusal:
            yield error(str(refusal), key)
        except ValidationError:
            yield error(f"{name} must be {in_words(spec.value_type)}, got {value!r}.", key)
        else:
            if doubt := _question_value(method.spec.name, spec.name, valid):
                yield warning(f"{name} is {value!r}: {doubt}", key)


def _question_value(method: str, name: str, value: object) -> str | None:
    """Return what a value does if mergekit takes it but nobody can want it, else None."""
    if not isinstance(value, float):
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return "a number that is not finite makes every tensor invalid; give a finite one."
    if method == "slerp" and name == "t" and not 0 <= value <= 1:
        return "0 is the base model and 1 is the other model; give a number between them."
    if name == "select_topk" and not 0 < value <= 1:
        return "it is a share, so give a number above 0 and at most 1."
    if name == "density" and value <= 0:
        return "at 0 or below, nothing of the input is kept; give a share above 0."
    if name == "density" and value > 1:
        return "more than 1 is the same as 1; give a share of at most 1."
    if name in ("gamma", "epsilon") and not 0 <= value < 1:
        return "it is a share, so give a number from 0 to below 1."
    return None
