"""The parameters that recipes can set: names, types, ranges, defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Annotated, Any, Literal

from mergekit.merge_methods.base import ParameterScope, ParameterSpec
from pydantic import AllowInfNan, BeforeValidator, Field, TypeAdapter, ValidationError

from mergekit_spectral.errors import MergeError
from mergekit_spectral.spectral import TIE

MARGIN = 0.001
"""How close to a bound that is not valid itself a search may come, in units of the parameter."""


@dataclass(frozen=True)
class SearchRange:
    """The values of a number that a search may try.

    Attributes:
        low: the lowest one.
        high: the highest one, or infinity.
        unit: the value that is 1 for the search: the top of the range if there is one.
    """

    low: float
    high: float
    unit: float = 1.0


@dataclass(frozen=True)
class Parameter(ParameterSpec):
    """A parameter whose values are refused in a sentence that a recipe's author understands.

    Attributes:
        method: the method's name, for the sentence.
        valid: the valid values, in words.
        source: the paper that it comes from.
    """

    method: str = ""
    valid: str = ""
    source: str = ""

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

    def search_range(self) -> SearchRange | None:
        """Return the values that a search may try; None if this is no number with a lower bound."""
        schema = TypeAdapter(self.value_type).json_schema()
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        if schema.get("type") != "number" or low is None:
            return None
        high = schema.get("maximum", schema.get("exclusiveMaximum", inf))
        unit = high if 0 < high < inf else 1.0
        return SearchRange(
            low=low if "minimum" in schema else low + MARGIN * unit,
            high=high if "maximum" in schema else high - MARGIN * unit,
            unit=unit,
        )


LARGEST = 3.4e38
"""Largest number in float32, in which weights are multiplied."""

Number = Annotated[float, AllowInfNan(False), Field(ge=-LARGEST, le=LARGEST)]
Density = Annotated[float, Field(gt=0, le=1)]
Percentage = Annotated[float, Field(gt=0, le=100)]
Tolerance = Annotated[float, Field(ge=0, lt=1)]


def _refuse_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value, of which Python makes the number 1")
    return value


Rank = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, AllowInfNan(False), Field(gt=0)],
    BeforeValidator(_refuse_truth_value),
]
"""A number of directions, or a share of them. 1 is one direction, and 1.0 is all of them."""

WEIGHT = Parameter(
    "weight", Number, ParameterScope.NON_BASE, 1.0,
    "Weight of an input in the election of signs and in the mean. It is optional in `knots_M` "
    "too, unlike in M.",
    valid="from -3.4e38 to 3.4e38", source="TIES",
)  # fmt: skip
LAMBDA = Parameter(
    "lambda", Number, ParameterScope.SHARED, 1.0,
    "Scale of the merged delta before it is added to the base. The first thing to tune: below 1 "
    "if the merged model babbles, above 1 if it has forgotten its tasks.",
    valid="from -3.4e38 to 3.4e38", source="task arithmetic",
)  # fmt: skip
NORMALIZE = Parameter(
    "normalize", bool, ParameterScope.SHARED, True,
    "Divide by the sum of the weights that take part in an entry.",
    valid="true or false", source="mergekit",
)  # fmt: skip
NORMALIZE_WEIGHTS = replace(
    NORMALIZE,
    description="Divide the weights by their mean, so that only their ratios matter.",
    source="",
)
DENSITY = Parameter(
    "density", Density, ParameterScope.NON_BASE, 0.2,
    "Share of the renormalized entries that pruning keeps. If all densities are equal, one "
    "threshold prunes all inputs; otherwise each input has its own.",
    valid="above 0 and at most 1", source='DRM, "Prune"',
)  # fmt: skip
RANK = Parameter(
    "rank", Rank | None, ParameterScope.SHARED, None,
    "How many of the directions above `rank_tolerance` are kept at most, from the largest on: a "
    "number (`512`), or a share of the length of the shared side (`0.25`). Fewer take less time.",
    valid="a whole number of directions, at least 1, or a share of them, above 0 and at most 1.0",
)  # fmt: skip
RENORMALIZE = Parameter(
    "renormalize", bool, ParameterScope.SHARED, True,
    "Prune by rows scaled to unit length, as DRM does. `false` prunes by the rows of the right "
    "singular vectors as they are.",
    valid="true or false", source='DRM, "Renormalize"',
)  # fmt: skip
DIRECTION = Parameter(
    "direction", Literal["horizontal", "vertical", "auto"], ParameterScope.SHARED, "horizontal",
    "Whether the inputs share the basis of the output space (left singular vectors) or of the "
    "input space. `auto` takes the smaller side of each weight, which is cheaper.",
    valid="horizontal, vertical or auto", source="DRM, KnOTS",
)  # fmt: skip
RANK_TOLERANCE = Parameter(
    "rank_tolerance", Tolerance, ParameterScope.SHARED, 0.01,
    "Directions whose singular value is at most this share of the largest are left out: those that "
    "the inputs share in `drm`, `actmat` and KnOTS, those of the sum in `iso`, and those of each "
    "input in `tsvm`. Below about 1e-6, `drm` and KnOTS use a slower and more exact decomposition, "
    "and so does `actmat` below 0.01.",
    valid="at least 0 and below 1",
    source="DRM; KnOTS (absolute in the paper, relative in this package)",
)  # fmt: skip
FLATTEN = Parameter(
    "flatten", Annotated[float, Field(ge=0, le=1)], ParameterScope.SHARED, 0.75,
    "How far the singular values of the sum are made equal: 0 leaves them as they are, 1 makes all "
    "equal, as Iso-C does. The Frobenius norm of the sum stays the same.",
    valid="from 0 to 1", source="Iso-C; values between 0 and 1 are this package's",
)  # fmt: skip
SHARE = Parameter(
    "share", Annotated[float, Field(gt=0)], ParameterScope.NON_BASE, 1.0,
    "How many singular directions of an input are kept at most, as a share of the min(out, in) / T "
    "that TSV-M keeps of each of T inputs.",
    valid="above 0", source="TSV-M, §3",
)  # fmt: skip
ETA = Parameter(
    "eta", Percentage, ParameterScope.NON_BASE, 40.0,
    "Percentage of an update's nuclear norm that the kept directions must reach, before they are "
    "rescaled to the whole norm. 100 keeps everything.",
    valid="above 0 and at most 100", source="STAR, §3",
)  # fmt: skip
EMBEDDINGS = Parameter(
    "embeddings", Literal["elementwise", "spectral"], ParameterScope.SHARED, "elementwise",
    "How embeddings and `lm_head` are merged: like vectors, or by the method. `spectral` costs "
    "far more time.",
    valid="elementwise or spectral",
)  # fmt: skip

_VALID: dict[Any, str] = {
    Number: "from -3.4e38 to 3.4e38",
    float: "a number",
    bool: "true or false",
    int: "a whole number",
}
# mergekit does not describe the parameters of its task arithmetic methods.
_MERGEKIT = {
    "weight": ("How much an input counts.", "task arithmetic"),
    "lambda": (LAMBDA.description or "", LAMBDA.source),
    "normalize": (NORMALIZE.description or "", NORMALIZE.source),
    "density": ("Share of an input's entries that is kept.", "TIES, DARE, DELLA, Breadcrumbs"),
    "rescale": (
        "Scale an input's kept entries up to the sum of magnitudes before pruning.",
        "DARE",
    ),
    "int8_mask": ("Hold the mask of signs in int8, which takes less memory.", "mergekit"),
    "gamma": ("Share of an input's largest entries that is dropped.", "Breadcrumbs"),
    "epsilon": (
        "The chance that an entry is kept grows with its magnitude, from density − ε to density "
        "+ ε.",
        "DELLA",
    ),
}


def most_directions(rank: float | None, side: int) -> int:
    """Return how many directions the parameter `rank` keeps at most.

    A float above 1 is a value between two numbers of a gradient, and is rounded up, as shares are.

    Args:
        rank: the parameter.
        side: the length of the side that the inputs share.
    """
    if rank is None:
        return side
    if isinstance(rank, int):
        return rank
    # 0.1 · 30 is a little more than 3 in floating point.
    return max(1, ceil((rank if rank > 1 else rank * side) * (1 - TIE)))


def in_words(value_type: Any) -> str:
    """Say which values a parameter of mergekit's takes."""
    return _VALID.get(value_type, f"of type {value_type}")


def described(parameter: ParameterSpec) -> tuple[str, str]:
    """Return what a parameter of mergekit's does, and the paper that it comes from."""
    return _MERGEKIT.get(parameter.name, (parameter.description or "", ""))


def for_method(method: str, parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """Return `parameters` with the method's name in them, for their error messages."""
    return tuple(replace(parameter, method=method) for parameter in parameters)


def borrowed(parameter: ParameterSpec) -> Parameter:
    """Return a task arithmetic method's parameter, with words for it and for a refusal."""
    description, source = described(parameter)
    return Parameter(
        parameter.name,
        parameter.value_type,
        parameter.scope,
        parameter.default,
        description,
        valid=in_words(parameter.value_type),
        source=source,
    )
