"""Parameters that the method does not have, that count for nothing where they stand, or are wrong.

mergekit ignores the first two in silence, and finds the last when it comes to the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from mergekit.common import ModelReference
from mergekit.config import ConditionalParameter, MergeConfiguration, ParameterSetting
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import MergeMethod, ParameterScope, ParameterSpec
from pydantic import ValidationError

from mergekit_spectral.errors import MergeError
from mergekit_spectral.methods.parameters import in_words
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.sections import Section, scalars, sections
from mergekit_spectral.recipe.spelling import meant
from mergekit_spectral.recipe.text import Key


def check_parameters(config: MergeConfiguration, method: MergeMethod, findings: Findings) -> None:
    """Check the names, places and values of all parameters of a recipe."""
    for section in sections(config):
        for name, setting in (section.settings or {}).items():
            key = (*section.key, name)
            spec = next((p for p in method.spec.parameters if p.name == name), None)
            if spec is None:
                _unknown(name, method, findings, key)
            elif unused := _unused(section, spec):
                findings.warning(f"`{name}` counts for nothing here: {unused}", key)
            else:
                _check_values(method, spec, setting, findings, key)
    for spec in method.spec.parameters:
        if spec.required:
            _check_required(config, method, spec, findings)


def _check_required(
    config: MergeConfiguration, method: MergeMethod, spec: ParameterSpec, findings: Findings
) -> None:
    every = list(sections(config))
    shared = spec.scope == ParameterScope.SHARED
    for section in every:
        unused = section.of_base and spec.scope == ParameterScope.NON_BASE
        if section.model is None or unused:
            continue
        place = section.key[:-1]
        around = [one for one in every if one.model is None and one.is_around(place)]
        read = around if shared else [section, *around]
        if any(spec.name in (one.settings or {}) for one in read):
            continue
        need = f"{method.spec.name} needs a value of `{spec.name}`"
        if shared or not any(spec.name in (one.settings or {}) for one in every):
            of_each = "" if shared else ", or under that of each model"
            findings.error(f"{need}; set it under `parameters` of the whole recipe{of_each}.")
            return
        findings.error(f"{need}, also for {section.model}.", place)


def filters(config: MergeConfiguration) -> Iterator[tuple[Key, str]]:
    """Yield every filter in a recipe's parameters, and where it stands."""
    for section in sections(config):
        for name, setting in (section.settings or {}).items():
            several = isinstance(setting, list)
            for number, part in enumerate(setting if isinstance(setting, list) else [setting]):
                if isinstance(part, ConditionalParameter) and part.filter not in (None, "*"):
                    own = (number,) if several else ()
                    yield (*section.key, name, *own), part.filter or ""


def places(config: MergeConfiguration, name: str, model: ModelReference) -> Iterator[Key]:
    """Yield where a parameter of one model stands, the closest first."""
    every = [s for s in sections(config) if name in (s.settings or {})]
    yield from ((*s.key, name) for s in every if s.model == model)
    yield from ((*s.key, name) for s in reversed(every) if s.model is None)


def _unknown(name: str, method: MergeMethod, findings: Findings, key: Key) -> None:
    known = [parameter.name for parameter in method.spec.parameters]
    specs = [other.spec for other in registered_methods()]
    users = [spec.name for spec in specs if name in (p.name for p in spec.parameters)]
    if users:
        # As when one word of a recipe for TIES is changed.
        findings.note(
            f"{method.spec.name} has no parameter `{name}` and ignores it; {_some(users)} "
            f"{'has' if len(users) == 1 else 'have'} one.",
            key,
        )
    else:
        findings.warning(
            f"{method.spec.name} has no parameter `{name}`, and mergekit ignores it; "
            f"{meant(name, known)}",
            key,
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _unused(section: Section, spec: ParameterSpec) -> str | None:
    """Say why mergekit never looks at a parameter where it stands."""
    if section.model is not None and spec.scope == ParameterScope.SHARED:
        return (
            f"it holds for all inputs together, so set it under the `parameters` of the whole "
            f"recipe, not of {section.model}."
        )
    if section.of_base and spec.scope == ParameterScope.NON_BASE:
        return f"{section.model} is the base model, which the inputs are compared to."
    return None


def _check_values(
    method: MergeMethod,
    spec: ParameterSpec,
    setting: ParameterSetting,
    findings: Findings,
    key: Key,
) -> None:
    name = f"{method.spec.name}: parameter `{spec.name}`"
    values = list(scalars(setting))
    if not values:
        findings.warning(f"{name} is an empty list, which mergekit takes as not set.", key)
    for value in values:
        try:
            valid = spec.validate(value)
        except MergeError as error:
            findings.error(str(error), key)
        except ValidationError:
            findings.error(f"{name} must be {in_words(spec.value_type)}, got {value!r}.", key)
        else:
            if told := _out_of_sense(method.spec.name, spec.name, valid):
                findings.warning(f"{name} is {value!r}: {told}", key)


def _out_of_sense(method: str, name: str, value: object) -> str | None:
    """Say what a value does that mergekit takes, but that nobody can have meant."""
    if not isinstance(value, float):
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return "a number that is not finite spoils every tensor; give a finite one."
    if method == "slerp" and name == "t" and not 0 <= value <= 1:
        return "0 is the base model and 1 the other, and this lies beyond one of them."
    if name == "select_topk" and not 0 < value <= 1:
        return "it is a share, so give a number above 0 and at most 1."
    if name == "density" and value <= 0:
        return "at 0 or below nothing of the input is left; give a share above 0."
    if name == "density" and value > 1:
        return "more than 1 is the same as 1; give a share of at most 1."
    if name in ("gamma", "epsilon") and not 0 <= value < 1:
        return "it is a share, so give a number from 0 to below 1."
    return None
