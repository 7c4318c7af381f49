"""All checks of one recipe, in the order in which one needs the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.merge_methods import registered_methods
from mergekit.merge_methods.base import BasePolicy, MergeMethod
from mergekit.options import MergeOptions

from mergekit_spectral.checking.configs import check_configs
from mergekit_spectral.checking.costs import Costs, costs_of, gigabytes
from mergekit_spectral.checking.hub_names import check_hub_names
from mergekit_spectral.checking.identity import check_identity
from mergekit_spectral.checking.inputs import check_inputs
from mergekit_spectral.checking.layers import check_architectures, check_layers
from mergekit_spectral.checking.out import check_out
from mergekit_spectral.checking.parameters import check_parameters
from mergekit_spectral.checking.tensors import check_tensors
from mergekit_spectral.checking.tokenizers import check_tokenizers
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.models import CheckedModel, header_loaders, open_models, references
from mergekit_spectral.host.plan import (
    PlannedMerge,
    PlannedTensor,
    find_architecture,
    plan_merge,
)
from mergekit_spectral.methods import SpectralMethod
from mergekit_spectral.recipe.findings import Finding, Findings
from mergekit_spectral.recipe.reading import read_recipe
from mergekit_spectral.recipe.sections import base_models, wrong_dtypes
from mergekit_spectral.recipe.spelling import meant
from mergekit_spectral.recipe.text import Key


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        findings: in the order of their lines, those about the whole recipe last.
        method: the merge method's name, if the recipe has one that there is.
        costs: what the merge takes; None if that cannot be told.
        unchecked: why part of the checks could not be made; None if all were.
    """

    findings: tuple[Finding, ...]
    method: str | None = None
    costs: Costs | None = None
    unchecked: str | None = None

    @property
    def errors(self) -> list[Finding]:
        """Why the merge would fail."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def failed(self) -> bool:
        """Whether the merge would fail."""
        return bool(self.errors)


def check(recipe: Path, options: MergeOptions, out: Path) -> Report:
    """Check a recipe by configurations and the headers of files.

    Args:
        recipe: the recipe's file.
        options: mergekit's, with which it would be run.
        out: where the merged model would go.
    """
    return examine(recipe, options, out)[0]


def examine(
    recipe: Path, options: MergeOptions, out: Path | None
) -> tuple[Report, PlannedMerge | None]:
    """Check a recipe, and return with the report mergekit's plan of it.

    That is None if there is an error, or a model is not here.

    Args:
        recipe: the recipe's file.
        options: mergekit's.
        out: where the merged model would go; None for a look at the inputs alone, of which the
            costs are not told.
    """
    config, findings = read_recipe(recipe)
    if config is None:
        return Report(findings.by_line()), None
    method = _method(config, findings)
    if method is not None:
        _check_base(config, method, findings)
        check_inputs(config, method, findings)
        check_parameters(config, method, findings)
    for name, message in wrong_dtypes(config):
        findings.error(message, (name,))
    models = open_models(config, options, recipe.parent, findings)
    named = references(config)
    check_tokenizers(config, models, named, recipe.parent, findings)
    check_identity(models, base_models(config), named, findings)
    check_configs(config, models, named, findings)
    if out is not None:
        check_out(out, models, findings)
        if options.write_model_card and not isinstance(method, SpectralMethod):
            check_hub_names(named, findings)
    # An inspection reads an adapter's factors, whatever the method does.
    in_factors = out is None or isinstance(method, SpectralMethod)
    copied = list(_copied(config, models, in_factors))
    _check_copies(copied, models, options, named, findings)
    if not options.allow_crimes:
        check_architectures(models, named, findings)
    costs, merge, missing = None, None, len(models) < len(named)
    if method is not None and not findings.failed and not missing:
        plan = _plan(config, models, options, findings)
        if plan is not None:
            merge = PlannedMerge(config, method, models, named, copied, *plan, options)
            check_tensors(merge, findings)
            if out is not None:
                costs = costs_of(merge, out, findings)
    why = "until the errors are mended" if findings.failed else "until all models are here"
    unchecked = None if costs else why
    report = Report(findings.by_line(), config.merge_method, costs, unchecked)
    return report, None if findings.failed else merge


def _plan(
    config: MergeConfiguration,
    models: dict[ModelReference, CheckedModel],
    options: MergeOptions,
    findings: Findings,
) -> tuple[list[PlannedTensor], dict[ModelReference, set[str]]] | None:
    """Return mergekit's plan, and the names of the tensors of each model that it reads."""
    loaders = header_loaders(models)
    try:
        architecture = find_architecture(config, loaders, options)
        check_layers(config, architecture, models, findings)
        if findings.failed:
            return None
        tensors = plan_merge(config, architecture, loaders, options)
        return tensors, {model: loader.read_names for model, loader in loaders.items()}
    except MergeError as error:
        findings.error(error.message)
    return None


def _method(config: MergeConfiguration, findings: Findings) -> MergeMethod | None:
    known = {method.spec.name: method for method in registered_methods()}
    name = config.merge_method
    if name not in known:
        told = f"there is no merge method {name}; {meant(name, known)}"
        findings.error(told, ("merge_method",))
    return known.get(name)


def _check_base(config: MergeConfiguration, method: MergeMethod, findings: Findings) -> None:
    if method.spec.contract.base == BasePolicy.REQUIRED and config.base_model is None:
        slices = [*(config.slices or [])]
        slices += [part for m in (config.modules or {}).values() for part in m.slices or []]
        if not slices or any(part.base_model is None for part in slices):
            which = (
                "one of the two models"
                if method.spec.contract.max_inputs == 2
                else "the model that the inputs were fine-tuned from"
            )
            findings.error(f"{method.spec.name} needs a base model: set `base_model` to {which}.")
    if method.spec.contract.base == BasePolicy.FORBIDDEN and config.base_model is not None:
        findings.error(f"{method.spec.name} takes no base model; leave it out.", ("base_model",))
    if method.spec.contract.base == BasePolicy.IGNORED and config.base_model is not None:
        findings.note(
            f"{method.spec.name} does not compare to a base model; mergekit takes the "
            "configuration and the tokenizer of it, and merges it like the others.",
            ("base_model",),
        )


def _copied(
    config: MergeConfiguration,
    models: Mapping[ModelReference, CheckedModel],
    in_factors: bool,
) -> Iterator[ModelReference]:
    """Yield the LoRA inputs that mergekit merges into copies of their bases first."""
    for reference, model in models.items():
        if reference.lora is None:
            continue
        whole = reference in base_models(config)
        if not in_factors or model.adapter is None or whole:
            yield reference


def _check_copies(
    copied: list[ModelReference],
    models: Mapping[ModelReference, CheckedModel],
    options: MergeOptions,
    named: Mapping[ModelReference, Key],
    findings: Findings,
) -> None:
    for reference in copied:
        size = gigabytes(models[reference].checkpoint.bytes)
        message = f"mergekit merges {reference} into a copy of its base first, of {size}"
        if options.lora_merge_cache is None:
            findings.error(
                f"{message}, and needs --lora-merge-cache FOLDER for it, also here.",
                named[reference],
            )
        else:
            findings.note(f"{message}, in {options.lora_merge_cache}.", named[reference])
