"""What can be said of merge methods from their specs alone, for people and for programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mergekit.merge_methods.base import MergeMethod, ParameterScope, ParameterSpec

from mergekit_spectral.methods.base import SpectralMethod
from mergekit_spectral.methods.parameters import Parameter, described, in_words

SCOPES: dict[ParameterScope, Literal["shared", "per input", "per input and base"]] = {
    ParameterScope.SHARED: "shared",
    ParameterScope.NON_BASE: "per input",
    ParameterScope.INPUT: "per input and base",
}


@dataclass(frozen=True)
class ParameterDescription:
    """A parameter of one method.

    Attributes:
        name: in recipes.
        scope: whether each input may have a value of its own.
        valid: the values it takes, in words.
        required: whether a recipe must set it.
        default: its value where a recipe does not; None if it must.
        description: what it does; empty if mergekit does not say.
        source: the paper that it comes from, or empty.
    """

    name: str
    scope: Literal["shared", "per input", "per input and base"]
    valid: str
    required: bool
    default: Any
    description: str
    source: str

    @classmethod
    def of(cls, parameter: ParameterSpec) -> ParameterDescription:
        """Describe a parameter of any method."""
        if isinstance(parameter, Parameter):
            valid, source = parameter.valid, parameter.source
            description = parameter.description or ""
        else:
            valid = in_words(parameter.value_type)
            description, source = described(parameter)
        return cls(
            name=parameter.name,
            scope=SCOPES[parameter.scope],
            valid=valid,
            required=parameter.required,
            default=None if parameter.required else parameter.default,
            description=description,
            source=source,
        )


@dataclass(frozen=True)
class MethodDescription:
    """A merge method.

    Attributes:
        name: in recipes.
        title: as its authors write it.
        summary: what it does, in a line; empty for mergekit's own.
        reference: where it is published, if anywhere.
        base_model: whether a recipe must name one, may, may not, or it makes no difference.
        parameters: in the spec's order.
    """

    name: str
    title: str
    summary: str
    reference: str | None
    base_model: Literal["required", "optional", "forbidden", "ignored"]
    parameters: tuple[ParameterDescription, ...]

    @classmethod
    def of(cls, method: MergeMethod) -> MethodDescription:
        """Describe any method, ours or mergekit's own."""
        spec = method.spec
        return cls(
            name=spec.name,
            title=spec.pretty_name or spec.name,
            summary=method.summary if isinstance(method, SpectralMethod) else "",
            reference=spec.reference_url,
            base_model=spec.contract.base.value,
            parameters=tuple(map(ParameterDescription.of, spec.parameters)),
        )


PARAMETER_COLUMNS = ("parameter", "methods", "scope", "valid", "default", "what it does", "source")


def parameter_rows(methods: Iterable[MethodDescription]) -> list[tuple[str, ...]]:
    """Return a row for each parameter of several methods, as in `PARAMETER_COLUMNS`.

    Methods share a row where a parameter means the same, whatever its default is.
    """
    methods = list(methods)
    users: dict[tuple[str, ...], list[str]] = defaultdict(list)
    defaults: dict[tuple[str, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for method in methods:
        for p in method.parameters:
            meaning = (p.name, p.scope, p.valid, p.description, p.source)
            users[meaning].append(method.name)
            defaults[meaning][default_text(p)].append(method.name)
    names = [method.name for method in methods]
    return [
        (
            f"`{meaning[0]}`",
            _listed(users[meaning], names),
            *meaning[1:3],
            _defaults(defaults[meaning]),
            *meaning[3:],
        )
        for meaning in users
    ]


def default_text(parameter: ParameterDescription) -> str:
    """Return a default as a recipe would have it."""
    if parameter.required:
        return "must be given"
    if isinstance(parameter.default, bool):
        return str(parameter.default).lower()
    if isinstance(parameter.default, float):
        return f"{parameter.default:g}"
    return "none" if parameter.default is None else str(parameter.default)


def _defaults(users: dict[str, list[str]]) -> str:
    """Say which default most methods have, and which others have another."""
    common, *others = sorted(users, key=lambda value: -len(users[value]))
    return "; ".join([common, *(f"{value} for {_quoted(users[value])}" for value in others)])


def _listed(some: Sequence[str], all_names: Sequence[str]) -> str:
    """List methods, in short where they are all or all of KnOTS."""
    if len(some) == len(all_names):
        return "all"
    knots = [name for name in all_names if name.startswith("knots")]
    if len(knots) > 1 and set(knots) <= set(some):
        return ", ".join(filter(None, (_quoted(n for n in some if n not in knots), "all of KnOTS")))
    return _quoted(some)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
