"""A recipe's structure: its ``parameters:`` sections, and the models that are merged together.

`_walk` is the only traversal of a recipe in the package; everything else here filters what it
yields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

from mergekit_spectral.recipe.text import Key


@dataclass(frozen=True)
class Section:
    """One ``parameters:`` section that a recipe has or may have.

    Attributes:
        settings: its parameters; None if the recipe does not have the section.
        base_model: the model that the section's inputs are compared to, if any.
        model: the input that the section belongs to; None for that of the whole recipe, a module
            or a slice.
        key: its place, as ("models", 0, "parameters").
        layers: the ``layer_range`` of an input of a slice.
    """

    settings: dict[str, ParameterSetting] | None
    base_model: ModelReference | None
    model: ModelReference | None = None
    key: Key = ("parameters",)
    layers: tuple[int, int] | None = None

    @property
    def of_base(self) -> bool:
        """Whether the section belongs to the base model, as one of the inputs."""
        return self.model is not None and self.model == self.base_model

    def contains(self, place: Key) -> bool:
        """Whether the section's parameters hold for what is at a place."""
        return place[: len(self.key) - 1] == self.key[:-1]


@dataclass(frozen=True)
class Group:
    """Models that are merged with one another: a list of models, or the sources of a slice.

    Attributes:
        key: the list's place, as ("models",) or ("slices", 0, "sources").
        base_model: the model that they are compared to, if any.
        module: the module of the models that the list is for; None for all.
        models: the models, in the recipe's order.
        inputs: each model's own section.
        is_slice: whether it is a slice, whose sources have a range of layers each.
    """

    key: Key
    base_model: ModelReference | None
    module: str | None
    models: tuple[ModelReference, ...]
    inputs: tuple[Section, ...]
    is_slice: bool


def sections(config: MergeConfiguration) -> Iterator[Section]:
    """Yield all sections that a recipe may have, whether or not it has them."""
    for part in _walk(config):
        if isinstance(part, Group):
            yield from part.inputs
        else:
            yield part


def groups(config: MergeConfiguration) -> Iterator[Group]:
    """Yield all lists of models that are merged with one another."""
    return (part for part in _walk(config) if isinstance(part, Group))


def references(config: MergeConfiguration) -> dict[ModelReference, Key]:
    """Return the models that a recipe names, each with the place where it is named first."""
    named: dict[ModelReference, Key] = {}
    for section in sections(config):
        place = section.key[:-1]
        if section.model is not None:
            named.setdefault(section.model, (*place, "model"))
        elif section.base_model is not None:
            named.setdefault(section.base_model, (*place, "base_model"))
    return named


def base_models(config: MergeConfiguration) -> set[ModelReference]:
    """Return the models that a recipe's inputs are compared to."""
    return {section.base_model for section in sections(config) if section.base_model is not None}


def filters(sections: Iterable[Section]) -> Iterator[tuple[Key, str]]:
    """Yield the text of every filter in parameters, with its place."""
    for section in sections:
        for name, setting in (section.settings or {}).items():
            several = isinstance(setting, list)
            for number, part in enumerate(setting if isinstance(setting, list) else [setting]):
                if isinstance(part, ConditionalParameter) and part.filter not in (None, "*"):
                    own = (number,) if several else ()
                    yield (*section.key, name, *own), part.filter or ""


def find_setting(sections: Iterable[Section], name: str, model: ModelReference) -> Key:
    """Return the place that sets a parameter of a model, its own before shared ones.

    Returns:
        The place, or () if the parameter is not set.
    """
    settings = [section for section in sections if name in (section.settings or {})]
    own = [section for section in settings if section.model == model]
    shared = [section for section in reversed(settings) if section.model is None]
    return next(((*section.key, name) for section in (*own, *shared)), ())


def scalars(setting: ParameterSetting) -> Iterator[ScalarParameter]:
    """Yield every scalar in a setting, which may be one, or made of filters or gradients."""
    if isinstance(setting, ConditionalParameter):
        yield from scalars(setting.value)
    elif isinstance(setting, list):
        for part in setting:
            yield from scalars(part)
    else:
        yield setting


def _walk(config: MergeConfiguration) -> Iterator[Section | Group]:
    """Yield a recipe's parts from outside in: the sections around a group before the group."""
    base = config.base_model
    yield Section(config.parameters, base)
    yield from _walk_models(config.models, base, (), None)
    yield from _walk_slices(config.slices, base, (), None)
    for name, module in (config.modules or {}).items():
        key = ("modules", name)
        yield Section(module.parameters, base, key=(*key, "parameters"))
        yield from _walk_models(module.models, base, key, name)
        yield from _walk_slices(module.slices, base, key, name)


def _walk_models(
    models: Sequence[InputModelDefinition] | None,
    base_model: ModelReference | None,
    key: Key,
    module: str | None,
) -> Iterator[Group]:
    if models:
        yield _group(models, base_model, (*key, "models"), module)


def _walk_slices(
    slices: Sequence[OutputSliceDefinition] | None,
    base_model: ModelReference | None,
    key: Key,
    module: str | None,
) -> Iterator[Section | Group]:
    for number, part in enumerate(slices or []):
        base = part.base_model or base_model
        own = (*key, "slices", number)
        yield Section(part.parameters, base, key=(*own, "parameters"))
        yield _group(part.sources, base, (*own, "sources"), module)


def _group(
    inputs: Sequence[InputModelDefinition | InputSliceDefinition],
    base_model: ModelReference | None,
    key: Key,
    module: str | None,
) -> Group:
    own = [
        Section(
            settings=one.parameters,
            base_model=base_model,
            model=one.model,
            key=(*key, number, "parameters"),
            layers=one.layer_range if isinstance(one, InputSliceDefinition) else None,
        )
        for number, one in enumerate(inputs)
    ]
    return Group(
        key=key,
        base_model=base_model,
        module=module,
        models=tuple(one.model for one in inputs),
        inputs=tuple(own),
        is_slice=key[-1] == "sources",
    )
