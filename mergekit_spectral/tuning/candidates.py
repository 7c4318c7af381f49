"""The recipes that are compared: the user's own with another method, density, rank or weights.

λ is not part of a candidate. Each candidate is merged with λ = 1 where the recipe has a number for
λ, and with the recipe's own λ where that is a gradient or has filters. The *scale* that is tuned is
then λ itself, or a factor of the recipe's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy, ParameterSpec

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.recipe.editing import change_values
from mergekit_spectral.recipe.findings import suggest_name
from mergekit_spectral.recipe.reading import Recipe
from mergekit_spectral.recipe.sections import Section, find_setting
from mergekit_spectral.recipe.text import Key

LAMBDA = "lambda"
WEIGHT = "weight"
COMPARED = ("density", "rank")
"""Parameters of methods whose values are compared, each the same for all inputs."""


@dataclass(frozen=True)
class Candidate:
    """One recipe to merge.

    Attributes:
        method: its merge method.
        density: of all inputs; None if it is the recipe's own.
        rank: the most directions that are kept; None if it is the recipe's own.
        weights: factors of the recipe's weights by input; None if they are the recipe's own.
    """

    method: str
    density: float | None = None
    rank: float | None = None
    weights: tuple[float, ...] | None = None

    def __str__(self) -> str:
        parts = [self.method, *(f"{name} {value}" for name, value in self.values.items())]
        if self.weights is not None:
            parts.append("weights " + ", ".join(f"{weight:g}" for weight in self.weights))
        return ", ".join(parts)

    @property
    def values(self) -> dict[str, float]:
        """Values of the parameters in `COMPARED`, without those that are the recipe's own."""
        own = {name: getattr(self, name) for name in COMPARED}
        return {name: value for name, value in own.items() if value is not None}

    @property
    def name(self) -> str:
        """A name for a folder."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"{self.method}-{digest[:8]}"


class TunedRecipe:
    """A recipe whose values are tuned.

    Args:
        recipe: the user's.

    Attributes:
        recipe: the user's.
        base: its base model.
        inputs: the other models, in the recipe's order.
        own: the candidate that is the recipe itself.
        own_scale: the scale at which it is the recipe itself.
        scales_lambda: whether the scale is a factor of the recipe's λ, because that is not one
            number.

    Raises:
        MergeError: it has no base model, several, or one with an adapter; or its λ is 0.
    """

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.base = _only_base(recipe)
        self.inputs = [model for model in recipe.references if model != self.base]
        self.own = Candidate(recipe.config.merge_method)
        values = [recipe.text.at(key) for key in self.places(LAMBDA)]
        numbers = {value for value in values if isinstance(value, int | float)}
        self.scales_lambda = len(numbers) > 1 or len(numbers) < len(set(map(str, values)))
        if self.scales_lambda and not any(map(_has_effect, values)):
            raise MergeError(f"{recipe.path}: `lambda` is 0, which cannot be scaled; set it to 1.")
        self.own_scale = 1.0 if self.scales_lambda or not numbers else float(numbers.pop())

    def changes(self, candidate: Candidate, scale: float) -> dict[Key, Any]:
        """Return what a candidate at a scale changes in the recipe, by its place."""
        changes: dict[Key, Any] = {("merge_method",): candidate.method}
        for name, value in candidate.values.items():
            changes |= dict.fromkeys(self.places(name) or [("parameters", name)], value)
        if candidate.weights is not None:
            changes |= self._weights(dict(zip(self.inputs, candidate.weights, strict=True)))
        elif self._needs_weight(candidate.method):
            changes["parameters", WEIGHT] = 1.0  # those of single inputs go before it
        if has_scale(candidate.method):
            if self.scales_lambda:
                text = self.recipe.text
                changes |= {key: times(text.at(key), scale) for key in self.places(LAMBDA)}
            elif places := self.places(LAMBDA) or [("parameters", LAMBDA)] * (scale != 1):
                changes |= dict.fromkeys(places, scale)
        return {key: value for key, value in changes.items() if self.recipe.text.at(key) != value}

    def config(self, candidate: Candidate) -> MergeConfiguration:
        """Return the recipe of a candidate at a scale of 1."""
        values = change_values(self.recipe.text.values, self.changes(candidate, 1.0))
        config: MergeConfiguration = MergeConfiguration.model_validate(values)
        return config

    def places(self, name: str) -> list[Key]:
        """Return the places in the recipe that set a parameter."""
        own = (section for section in self.recipe.sections if name in (section.settings or {}))
        return [(*section.key, name) for section in own]

    def _needs_weight(self, method: str) -> bool:
        """Whether an input has no weight, and the method has no default, as mergekit's own."""
        weight = find_parameter(method, WEIGHT)
        return bool(weight and weight.required) and any(
            section.model in self.inputs
            and not find_setting(self._around(section), WEIGHT, section.model)
            for section in self.recipe.sections
        )

    def _weights(self, factors: Mapping[ModelReference, float]) -> Iterator[tuple[Key, Any]]:
        for section in self.recipe.sections:
            if section.model is not None and section.model in factors:
                place = find_setting(self._around(section), WEIGHT, section.model)
                setting = self.recipe.text.at(place) if place else 1.0
                yield (*section.key, WEIGHT), times(setting, factors[section.model])

    def _around(self, section: Section) -> list[Section]:
        """Return the sections whose parameters hold for one input's: its own and those around."""
        return [
            each
            for each in self.recipe.sections
            if each is section or (each.model is None and each.contains(section.key))
        ]


def has_scale(method: str) -> bool:
    """Whether a method has λ."""
    return find_parameter(method, LAMBDA) is not None


def find_parameter(method: str, name: str) -> ParameterSpec | None:
    """Return a parameter of a method; None if the method has none of that name."""
    found = find_method(method)
    parameters = found.spec.parameters if found else ()
    return next((each for each in parameters if each.name == name), None)


def candidates(
    recipe: TunedRecipe, methods: Sequence[str], values: Mapping[str, Sequence[float]]
) -> list[Candidate]:
    """Return the recipe itself and all combinations of methods and values of their parameters.

    Args:
        recipe: the user's.
        methods: names of methods; the recipe's own if there are none.
        values: by parameter in `COMPARED`, for the methods that have it; the recipe's own if there
            are none.

    Raises:
        MergeError: there is no such method, it does not merge differences to a base, or no method
            has a parameter of `values`.
    """
    found = [recipe.own]
    without_use = {name for name in values if values[name]}
    for method in methods or [recipe.own.method]:
        known = find_method(method)
        if known is None:
            names = [each.spec.name for each in registered_methods()]
            raise MergeError(
                f"`--methods`: there is no merge method {method}; {suggest_name(method, names)}"
            )
        if known.spec.contract.base in (BasePolicy.IGNORED, BasePolicy.FORBIDDEN):
            raise MergeError(
                f"`--methods`: {method} does not merge differences to a base model, so it cannot "
                "be tuned."
            )
        for parameter in known.spec.parameters:
            is_missing = parameter.required and not recipe.places(parameter.name)
            if is_missing and parameter.name != WEIGHT:
                raise MergeError(
                    f"`--methods`: {method} needs a value of `{parameter.name}`; set it in "
                    f"{recipe.recipe.path}."
                )
        own = [name for name in values if values[name] and find_parameter(method, name)]
        without_use -= set(own)
        for combined in product(*(values[name] for name in own)):
            chosen: dict[str, Any] = dict(zip(own, combined, strict=True))
            found.append(Candidate(method, **chosen))
    if without_use:
        name, compared = min(without_use), methods or [recipe.own.method]
        have = "has" if len(compared) == 1 else "have"
        raise MergeError(
            f"`--{name}`: {' and '.join(compared)} {have} no parameter "
            f"`{name}`; leave the option out, or compare a method that has it."
        )
    # By their names, because the rank 1 equals the share 1.0.
    different: dict[str, Candidate] = {}
    for candidate in found:
        different.setdefault(candidate.name, candidate)
    return list(different.values())


def times(setting: Any, factor: float) -> Any:
    """Multiply a parameter's setting: a number, a gradient, or either behind filters."""
    if isinstance(setting, dict):
        return {**setting, "value": times(setting["value"], factor)}
    if isinstance(setting, list):
        return [times(part, factor) for part in setting]
    return float(f"{setting * factor:.6g}")


def _has_effect(setting: Any) -> bool:
    if isinstance(setting, dict):
        return _has_effect(setting["value"])
    if isinstance(setting, list):
        return any(map(_has_effect, setting))
    return bool(setting != 0)


def _only_base(recipe: Recipe) -> ModelReference:
    if len(recipe.base_models) != 1:
        named = " and ".join(sorted(map(str, recipe.base_models))) or "no model"
        raise MergeError(
            f"{recipe.path}: a merge is scaled as base + λ·Δ, so the recipe must have one "
            f"`base_model`; it names {named}."
        )
    (base,) = recipe.base_models
    if base.lora is not None:
        raise MergeError(
            f"{recipe.path}: `base_model` is {base}, a base with an adapter, which cannot be tuned "
            "on; merge the two into one model first."
        )
    return base
