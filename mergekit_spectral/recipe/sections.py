"""The sections of a recipe: its parameters, where they are and which models they are for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mergekit.common import ModelReference, dtype_from_name
from mergekit.config import (
    ConditionalParameter,
    InputModelDefinition,
    InputSliceDefinition,
    MergeConfiguration,
    OutputSliceDefinition,
    ParameterSetting,
    ScalarParameter,
)

from mergekit_spectral.spectral.precision import FLOATS

Settings = dict[str, ParameterSetting] | None


@dataclass(frozen=True)
class Section:
    """One ``parameters:`` section of a recipe.

    Attributes:
        settings: what it says, if it is there.
        base_model: that the section's inputs are compared to, if any.
        model: the input that it belongs to, if it is one's own.
        key: where it stands, as in ("models", 0, "parameters").
    """

    settings: Settings
    base_model: ModelReference | None
    model: ModelReference | None = None
    key: tuple[str | int, ...] = ("parameters",)

    @property
    def of_base(self) -> bool:
        """Whether it belongs to the base model, as one of the inputs."""
        return self.model is not None and self.model == self.base_model

    def is_around(self, place: tuple[str | int, ...]) -> bool:
        """Whether it holds for what stands at a place, as all do of the whole recipe."""
        return place[: len(self.key) - 1] == self.key[:-1]


def wrong_dtypes(config: MergeConfiguration) -> Iterator[tuple[str, str]]:
    """Yield ``dtype`` and ``out_dtype`` where weights cannot be of them, each with a sentence.

    mergekit takes int64 too, which rounds every weight to a whole number.
    """
    for key, name in (("dtype", config.dtype), ("out_dtype", config.out_dtype)):
        try:
            dtype = dtype_from_name(name)
        except RuntimeError:
            valid = False
        else:
            valid = dtype is None or dtype in FLOATS
        if not valid:
            yield key, f"`{key}` must be float32, bfloat16, float16 or float64, got {name}."


def base_models(config: MergeConfiguration) -> set[ModelReference]:
    """Return the models that inputs of a recipe are compared to."""
    return {section.base_model for section in sections(config) if section.base_model is not None}


def sections(config: MergeConfiguration) -> Iterator[Section]:
    """Yield all sections of parameters that a recipe may have, whether or not they are there."""
    yield Section(config.parameters, config.base_model)
    yield from _of_models(config.models, config.base_model, ("models",))
    yield from _of_slices(config.slices, config.base_model, ("slices",))
    for name, module in (config.modules or {}).items():
        key = ("modules", name)
        yield Section(module.parameters, config.base_model, key=(*key, "parameters"))
        yield from _of_models(module.models, config.base_model, (*key, "models"))
        yield from _of_slices(module.slices, config.base_model, (*key, "slices"))


def _of_models(
    models: Sequence[InputModelDefinition | InputSliceDefinition] | None,
    base_model: ModelReference | None,
    key: tuple[str | int, ...],
) -> Iterator[Section]:
    for number, model in enumerate(models or []):
        yield Section(model.parameters, base_model, model.model, (*key, number, "parameters"))


def _of_slices(
    slices: list[OutputSliceDefinition] | None,
    base_model: ModelReference | None,
    key: tuple[str | int, ...],
) -> Iterator[Section]:
    for number, output_slice in enumerate(slices or []):
        base = output_slice.base_model or base_model
        yield Section(output_slice.parameters, base, key=(*key, number, "parameters"))
        yield from _of_models(output_slice.sources, base, (*key, number, "sources"))


def scalars(setting: ParameterSetting) -> Iterator[ScalarParameter]:
    """Yield every scalar in a setting: of filters, of gradients, or itself."""
    if isinstance(setting, ConditionalParameter):
        yield from scalars(setting.value)
    elif isinstance(setting, list):
        for part in setting:
            yield from scalars(part)
    else:
        yield setting
