"""Check that a recipe names an existing method, the base model it needs, and usable dtypes."""

from __future__ import annotations

from collections.abc import Iterator

from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy

from mergekit_spectral.checking.cures import in_recipe
from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.host.mergeable import wrong_dtypes
from mergekit_spectral.recipe.findings import Finding, error, note, suggest_name


def check_method(subject: Subject) -> Iterator[Finding]:
    """Check that there is a method of the recipe's name."""
    if subject.method is None:
        name = subject.recipe.config.merge_method
        known = [method.spec.name for method in registered_methods()]
        yield error(
            f"there is no merge method {name}; {suggest_name(name, known)}", ("merge_method",)
        )


def check_base(subject: Subject) -> Iterator[Finding]:
    """Check that there is a base model if the method needs one, and only if it may have one."""
    method, base = subject.method, subject.recipe.config.base_model
    if method is None:
        return
    policy = method.spec.contract.base
    groups = subject.recipe.groups
    without = not groups or any(group.base_model is None for group in groups)
    if policy == BasePolicy.REQUIRED and without:
        which = (
            "one of the two models"
            if method.spec.contract.max_inputs == 2
            else "the model that the inputs were fine-tuned from"
        )
        adapted = {reference.model for reference in subject.recipe.references if reference.lora}
        yield error(
            f"{method.spec.name} needs a base model: set `base_model` to {which}.",
            cure=in_recipe({"base_model": str(*adapted)}) if len(adapted) == 1 else None,
        )
    if policy == BasePolicy.FORBIDDEN and base is not None:
        yield error(f"{method.spec.name} takes no base model; leave it out.", ("base_model",))
    if policy == BasePolicy.IGNORED and base is not None:
        yield note(
            f"{method.spec.name} does not compare inputs to a base model; mergekit takes its "
            "configuration and its tokenizer, and merges it like the others.",
            ("base_model",),
        )


def check_dtypes(subject: Subject) -> Iterator[Finding]:
    """Check that merged weights can have ``dtype`` and ``out_dtype``."""
    for key, message in wrong_dtypes(subject.recipe.config):
        yield error(message, (key,), cure=in_recipe({key: "bfloat16"}))
