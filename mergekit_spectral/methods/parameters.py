"""The parameters that recipes can set: names, types, ranges, defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from mergekit.merge_methods.base import ParameterScope, ParameterSpec
from pydantic import Field, ValidationError

from mergekit_spectral.errors import MergeError


@dataclass(frozen=True)
class Parameter(ParameterSpec):
    """A parameter whose values are refused in a sentence that a recipe's author understands.

    Attributes:
        method: the method's name, for the sentence.
        valid: the valid values, in words.
    """

    method: str = ""
    valid: str = ""

    def validate(self, value: Any) -> Any:
        """Return `value` as `value_type`.

        Raises:
            MergeError: if it is not of that type or out of range.
        """
        try:
            return super().validate(value)
        except ValidationError:
            raise MergeError(
                f"{self.method}: parameter `{self.name}` must be {self.valid}, got {value!r}."
            ) from None


Number = Annotated[float, Field(allow_inf_nan=False)]
Density = Annotated[float, Field(gt=0, le=1)]
Percentage = Annotated[float, Field(gt=0, le=100)]
Tolerance = Annotated[float, Field(ge=0, lt=1)]

_VALID: dict[Any, str] = {
    Number: "a finite number",
    float: "a number",
    bool: "true or false",
    int: "a whole number",
}

WEIGHT = Parameter(
    "weight", Number, ParameterScope.NON_BASE, 1.0,
    "How much the input counts in the election of signs and in the mean.",
    valid="a finite number",
)  # fmt: skip
LAMBDA = Parameter(
    "lambda", Number, ParameterScope.SHARED, 1.0,
    "Scale of the merged delta before it is added to the base.",
    valid="a finite number",
)  # fmt: skip
NORMALIZE = Parameter(
    "normalize", bool, ParameterScope.SHARED, True,
    "Divide by the sum of the weights that take part.",
    valid="true or false",
)  # fmt: skip
DENSITY = Parameter(
    "density", Density, ParameterScope.NON_BASE, 0.2,
    "Share of the renormalized entries that pruning keeps.",
    valid="above 0 and at most 1",
)  # fmt: skip
DIRECTION = Parameter(
    "direction", Literal["horizontal", "vertical", "auto"], ParameterScope.SHARED, "horizontal",
    "Whether the inputs share the left or the right basis; auto takes the smaller one.",
    valid="horizontal, vertical or auto",
)  # fmt: skip
RANK_TOLERANCE = Parameter(
    "rank_tolerance", Tolerance, ParameterScope.SHARED, 0.01,
    "Singular values at or below this share of the largest are left out.",
    valid="at least 0 and below 1",
)  # fmt: skip
ETA = Parameter(
    "eta", Percentage, ParameterScope.NON_BASE, 40.0,
    "Percentage of an input's nuclear norm that its kept directions must reach.",
    valid="above 0 and at most 100",
)  # fmt: skip
EMBEDDINGS = Parameter(
    "embeddings", Literal["elementwise", "spectral"], ParameterScope.SHARED, "elementwise",
    "How tensors with a vocabulary axis are merged.",
    valid="elementwise or spectral",
)  # fmt: skip


def for_method(method: str, parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Return `parameters` with the method's name in them, for their error messages."""
    return tuple(replace(parameter, method=method) for parameter in parameters)


def borrowed(parameter: ParameterSpec) -> Parameter:
    """Return another method's parameter, unchanged but for the way it refuses a value."""
    return Parameter(
        parameter.name,
        parameter.value_type,
        parameter.scope,
        parameter.default,
        parameter.description,
        valid=_VALID.get(parameter.value_type, f"of type {parameter.value_type}"),
    )
