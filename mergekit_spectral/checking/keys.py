"""Keys that mergekit does not know, and so ignores in silence."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from pydantic import BaseModel

from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.spelling import meant
from mergekit_spectral.recipe.text import Key, dotted


def check_keys(values: Any, findings: Findings) -> None:
    """Warn of keys in a recipe that stand for nothing, except among ``parameters``."""
    for key, known in _unknown(values, MergeConfiguration, ()):
        if key == ("name",):
            findings.note("`mergekit-yaml` ignores `name`; `mergekit-multi` goes by it.", key)
            continue
        if len(key) == 1 and key[0] in MergeOptions.model_fields:
            option = f"--{key[0]}".replace("_", "-")
            findings.warning(
                f"`{key[0]}` is no key of a recipe, and mergekit ignores it; give {option} to "
                "`mergekit-yaml`.",
                key,
            )
            continue
        where = f" in {dotted(key[:-1])}" if len(key) > 1 else ""
        findings.warning(
            f"mergekit knows no key `{key[-1]}`{where} and ignores it; "
            f"{meant(str(key[-1]), known)}",
            key,
        )


def _unknown(values: Any, annotation: Any, key: Key) -> Iterator[tuple[Key, list[str]]]:
    """Yield the keys that none of the types at their place has, with those that there are."""
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
    """Return the types that a union is made of."""
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
