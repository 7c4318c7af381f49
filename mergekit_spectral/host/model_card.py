"""What mergekit's model card says of a merge, so that others can repeat it.

mergekit's card names the method and has the recipe. Of our methods it does not say which package
they are in, and it has the paths of local models as they are on this machine. mergekit has no place
for such additions, so at the first merge that needs them two functions are replaced for the rest of
the process: `card.is_hf`, and the name `generate_card` in `mergekit.merge`. For other merges they
do what they did before.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import PurePath
from typing import Any

import yaml
from mergekit import card, merge
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.merge_methods.base import ParameterSpec

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.recipe_check import find_method, has_no_effect_on_base
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.methods.description import (
    MethodDescription,
    ParameterDescription,
    default_text,
)
from mergekit_spectral.recipe.editing import change_values, edit_recipe, find_comment
from mergekit_spectral.recipe.sections import references, sections
from mergekit_spectral.recipe.text import Key

PACKAGE = "mergekit-spectral"
TUNED = "Tuned by mergekit-spectral"
"""How the comment begins that `tune` puts on top of a recipe."""

REPEAT = """\
### Repeat This Merge

`{method}` is not part of mergekit. Install the packages that this merge was made with, save the
configuration above as `recipe.yml`, and run:

```sh
pip install .  # in a clone of {own}, which is not on PyPI yet
pip install {requirements}
{command}
```
"""

GenerateCard = Callable[..., str]

_ours: ContextVar[bool] = ContextVar("_ours", default=False)
_replacing = threading.Lock()


@contextmanager
def cards_that_others_can_use() -> Iterator[None]:
    """Have mergekit write cards that do not depend on this machine, within this context.

    Names of local folders are not looked up on the Hub, whatever the method. mergekit asks the Hub
    whether it has a model named ``name`` or ``org/name`` after the weights are written; without a
    network that is an error, and the merged model is left without a tokenizer and a card.

    Cards of our methods also have what `complete_card` says.
    """
    with _replacing:  # two threads may each begin the first merge
        if not hasattr(card.is_hf, "__wrapped__"):
            setattr(card, "is_hf", _except_folders(card.is_hf))  # noqa: B010, typed as it is
            names = vars(merge)
            names["generate_card"] = _completed(names["generate_card"])
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


def _except_folders(is_hf: Callable[[str], bool]) -> Callable[[str], bool]:
    @functools.wraps(is_hf)
    def wrapped(path: str) -> bool:
        is_local = path.startswith("./") or os.path.exists(path)
        return not (_ours.get() and is_local) and is_hf(path)

    return wrapped


def _completed(generate_card: GenerateCard) -> GenerateCard:
    @functools.wraps(generate_card)
    def wrapped(config: MergeConfiguration, config_yaml: str, name: str | None = None) -> str:
        method = find_method(config.merge_method)
        if _ours.get() and isinstance(method, SpectralMethod):
            return complete_card(generate_card, method, config, config_yaml, name)
        return generate_card(config=config, config_yaml=config_yaml, name=name)

    return wrapped


def complete_card(
    generate_card: GenerateCard,
    method: SpectralMethod,
    config: MergeConfiguration,
    recipe: str,
    name: str | None,
) -> str:
    """Return mergekit's card of a merge, and below it what it takes to repeat the merge.

    Local models have names without the path on this machine, see `portable_recipe`. Models are
    listed in the recipe's order.

    Args:
        generate_card: mergekit's.
        method: the recipe's.
        config: the recipe.
        recipe: its text.
        name: of the merged model.
    """
    try:
        text = portable_recipe(recipe)
        config = _InOrder.model_validate(yaml.safe_load(text))
    except (MergeError, RuntimeError, ValueError, yaml.YAMLError):
        # A program may have given mergekit any text. The card is no reason to fail after a merge.
        text = recipe
    parts = [
        generate_card(config=config, config_yaml=text, name=name).rstrip("\n"),
        describe_method(method, config),
        *tuned_on(recipe),
        repeat(method, "mergekit-yaml recipe.yml merged/"),
        *local_models(config),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


class _InOrder(MergeConfiguration):
    """A recipe whose models are in its own order; mergekit's order changes from run to run."""

    def referenced_models(self) -> list[ModelReference]:
        order = list(references(self))
        return sorted(super().referenced_models(), key=order.index)


def describe_method(method: SpectralMethod, config: MergeConfiguration) -> str:
    """Return a section on a method: what it does, where it is published, and its parameters."""
    described = MethodDescription.of(method)
    published = f" ([reference]({described.reference}))" if described.reference else ""
    rows = [
        f"| `{parameter.name}` | {_value(parameter, config)} | {one.description} |"
        for parameter, one in zip(method.spec.parameters, described.parameters, strict=True)
    ]
    return "\n".join(
        [
            "### Parameters",
            "",
            f"`{described.name}` is {described.title}{published}: {described.summary}.",
            "",
            "| parameter | value | what it does |",
            "| --- | --- | --- |",
            *rows,
        ]
    )


def _value(parameter: ParameterSpec, config: MergeConfiguration) -> str:
    """Return a parameter's value where a recipe sets one for all, or none."""
    setters = [
        section
        for section in sections(config)
        if parameter.name in (section.settings or {})
        and not has_no_effect_on_base(section, parameter)
    ]
    if not setters:
        return f"{default_text(ParameterDescription.of(parameter))} (default)"
    settings = setters[0].settings or {}
    value: Any = settings[parameter.name]
    if len(setters) == 1 and setters[0].key == ("parameters",) and _is_plain(value):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return "see the configuration"


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def tuned_on(recipe: str) -> list[str]:
    """Return a section on what a recipe was tuned on, by the comment of `tune` on top of it."""
    comment = find_comment(recipe, TUNED)
    return [f"### Tuning\n\n{comment}"] if comment else []


def repeat(method: SpectralMethod, command: str) -> str:
    """Return a section on how a merge can be repeated.

    Args:
        method: the recipe's.
        command: that merges ``recipe.yml``.
    """
    packages = dict.fromkeys(("mergekit", *_packages_of(method)))
    return REPEAT.format(
        method=method.spec.name,
        requirements=" ".join(map(_requirement, packages)),
        own=_requirement(PACKAGE).replace("==", " "),
        command=command,
    )


def _requirement(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:  # it is used from a clone, without installation
        return package


def _packages_of(method: SpectralMethod) -> Iterable[str]:
    """Return the package that a method is from, if that can be found and is another one."""
    top = type(method).__module__.partition(".")[0]
    return () if top == "mergekit_spectral" else packages_distributions().get(top, ())[:1]


def local_models(config: MergeConfiguration) -> list[str]:
    """Return a remark on the models of a portable recipe that are folders."""
    parts = [part for each in references(config) for part in (each.model, each.lora) if part]
    paths = dict.fromkeys(part.path for part in parts)
    local = [path for path in paths if path.startswith("./") or os.path.exists(path)]
    if not local:
        return []
    listed = ", ".join(f"`{path}`" for path in local)
    return [
        f"These models are local folders, not models of the Hugging Face Hub: {listed}. Put them, "
        "or links to them, where the command is run."
    ]


def portable_recipe(text: str) -> str:
    """Return a recipe's text in which no model has a path that only this machine has.

    A folder of the Hub's cache becomes the model's name with its revision. Another absolute path
    becomes ``./`` and the folder's name, with as many folders above it as keep the names distinct.
    Relative paths stay as they are. The recipe stays one that mergekit reads.

    Args:
        text: YAML, with absolute paths of models or without.
    """
    values = yaml.safe_load(text)
    strings = dict(_strings(values, ()))
    paths = {path for value in strings.values() for path, _ in _paths(value)}
    names = _portable_names(sorted(paths))
    changes = {key: _renamed(value, names) for key, value in strings.items()}
    changes = {key: value for key, value in changes.items() if value != strings[key]}
    if not changes:
        return text
    try:
        return edit_recipe(text, changes)
    except MergeError:  # such as in what a merge key brings in
        return yaml.safe_dump(change_values(values, changes), sort_keys=False)


def _strings(value: Any, key: Key) -> Iterator[tuple[Key, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for part, inner in value.items():
            yield from _strings(inner, (*key, part))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, (*key, number))


def _paths(value: str) -> Iterator[tuple[str, str]]:
    """Yield the paths in ``base@revision+adapter@revision``, each with its revision and mark."""
    for part in value.split("+"):
        path, mark, revision = part.partition("@")
        yield path, mark + revision


def _renamed(value: str, names: Mapping[str, str]) -> str:
    parts = []
    for path, revision in _paths(value):
        name = names.get(path, path)
        parts.append(name if "@" in name else name + revision)
    return "+".join(parts)


def _portable_names(paths: list[str]) -> dict[str, str]:
    """Return new names of those paths that are absolute and are folders here."""
    folders = [path for path in paths if PurePath(path).name and os.path.isdir(path)]
    local = list(filter(os.path.isabs, folders))
    names = {path: name for path in local if (name := _name_on_the_hub(path))}
    rest = [path for path in local if path not in names]
    return names | {path: f"./{_distinct_end(path, folders)}" for path in rest}


def _distinct_end(path: str, paths: Iterable[str]) -> str:
    """Return the last parts of a path, as few as no other of the paths ends with."""
    whole = PurePath(os.path.normpath(path)).parts
    others = {PurePath(os.path.normpath(each)).parts for each in paths} - {whole}
    parts = whole[1:]
    for count in range(1, len(parts)):
        if all(other[-count:] != parts[-count:] for other in others):
            return "/".join(parts[-count:])
    return "/".join(parts)


def _name_on_the_hub(path: str) -> str | None:
    """Return ``org/name@commit`` of a folder in the Hub's cache."""
    found = re.search(r"/models--([^/]+)/snapshots/([^/]+)/?$", PurePath(path).as_posix() + "/")
    return f"{found[1].replace('--', '/')}@{found[2]}" if found else None
