"""Find keys that mergekit does not have, and so ignores without a warning."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from pydantic import BaseModel

from mergekit_spectral.recipe.findings import Finding, note, suggest_name, warning
from mergekit_spectral.recipe.text import Key, dotted


def find_unknown_keys(values: Any) -> Iterator[Finding]:
    """Yield a finding for each key that has no effect, except among ``parameters``.

    Args:
        values: a recipe, as YAML reads it.

    Raises:
        RecursionError: the values contain themselves.
    """
    for key, known in _unknown(values, MergeConfiguration, ()):
        if key == ("name",):
            yield note("`mergekit-yaml` ignores `name`; `mergekit-multi` uses it.", key)
        elif len(key) == 1 and key[0] in MergeOptions.model_fields:
            option = f"--{key[0]}".replace("_", "-")
            yield warning(
                f"`{key[0]}` is not a key of a recipe, and mergekit ignores it; give {option} to "
                "`mergekit-yaml`.",
                key,
            )
        else:
            where = f" in {dotted(key[:-1])}" if len(key) > 1 else ""
            yield warning(
                f"mergekit has no key `{key[-1]}`{where} and ignores it; "
                f"{suggest_name(str(key[-1]), known)}",
                key,
            )


def _unknown(values: Any, annotation: Any, key: Key) -> Iterator[tuple[Key, list[str]]]:
    """Yield the keys that no type allowed at their place has, with the keys that these have."""
    if isinstance(values, list):
        inner = [argument for a in _options(annotation) for argument in _items(a, (list, tuple))]
        for number, value in enumerate(values):
            yield from _unknown(value, _union(inner), (*key, number))
    elif isinstance(values, dict):
        models = [a for a in _options(annotation) if _is_model(a)]
        inner = [argument for a in _options(annotation) for argument in _items(a, (dict,))[1:]]
        fields = {name: info.annotation for m in models for name, info in m.model_fields.items()}
        for name, value in values.items():
            if name in fields:
                yield from _unknown(value, fields[name], (*key, name))
            elif inner:
                yield from _unknown(value, _union(inner), (*key, name))
            elif models:
                yield (*key, name), list(fields)


def _options(annotation: Any) -> list[Any]:
    """Return the types that a union consists of."""
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for part in get_args(annotation) for option in _options(part)]
    return [annotation]


def _items(annotation: Any, containers: tuple[type, ...]) -> list[Any]:
    return list(get_args(annotation)) if get_origin(annotation) in containers else []


def _union(parts: list[Any]) -> Any:
    return Union[tuple(parts)] if parts else Any  # noqa: UP007, of any number


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
