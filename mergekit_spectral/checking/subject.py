"""Define what a check looks at, and run checks in the stages in which this becomes known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mergekit.common import ModelReference
from mergekit.merge_methods.base import MergeMethod
from mergekit.options import MergeOptions

from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.hub import HubModels
from mergekit_spectral.host.models import OpenedModel, open_models
from mergekit_spectral.host.plan import (
    ModelArchitecture,
    PlannedMerge,
    plan_merge,
    read_architecture,
)
from mergekit_spectral.recipe.findings import Finding, error, find_errors
from mergekit_spectral.recipe.reading import Recipe


@dataclass(frozen=True)
class Subject:
    """A recipe, and what is known about its merge so far.

    Attributes:
        recipe: the recipe.
        options: mergekit's.
        out: the folder that is written to; it need not exist.
        method: the recipe's merge method, or None if there is none of that name.
        hub: the models of which only the headers are on this machine, read on the Hub.
        models: the recipe's models that are on this machine and can be read. Known from the second
            stage on, when it may be incomplete.
        architecture: that mergekit merges the models by. Known from the third stage on.
        plan: mergekit's plan. Known in the fourth stage.
    """

    recipe: Recipe
    options: MergeOptions
    out: Path
    method: MergeMethod | None
    hub: HubModels = field(default_factory=HubModels)
    models: Mapping[ModelReference, OpenedModel] = field(default_factory=dict)
    architecture: ModelArchitecture | None = None
    plan: PlannedMerge | None = None

    @property
    def known_architecture(self) -> ModelArchitecture:
        """The architecture, for checks of the third and fourth stage."""
        assert self.architecture is not None
        return self.architecture

    @property
    def planned(self) -> PlannedMerge:
        """The plan, for checks of the fourth stage."""
        assert self.plan is not None
        return self.plan


Check = Callable[[Subject], Iterator[Finding]]


@dataclass(frozen=True)
class Stages:
    """Checks, by what they need.

    Attributes:
        of_recipe: these need the recipe alone.
        of_models: these need the models' configurations and the headers of their files.
        of_architecture: these need mergekit's architecture of the models.
        of_plan: these need mergekit's plan of the merge.
    """

    of_recipe: Sequence[Check]
    of_models: Sequence[Check]
    of_architecture: Sequence[Check]
    of_plan: Sequence[Check]


@dataclass(frozen=True)
class Result:
    """What the stages found.

    Attributes:
        subject: with all that became known. There is a plan if the last stage was run.
        findings: in the order in which they were made, without lines.
    """

    subject: Subject
    findings: list[Finding]


def run_stages(stages: Stages, subject: Subject) -> Result:
    """Run checks stage by stage, as far as the recipe and its models allow.

    The first two stages are always run. The others need a method, all models, and no error so far,
    because mergekit's planner would only fail on what is already reported.

    Args:
        stages: the checks.
        subject: the recipe, before any model is opened.
    """
    recipe, options, method = subject.recipe, subject.options, subject.method
    findings = _run(stages.of_recipe, subject)

    models, about_models = open_models(recipe, options, subject.hub)
    subject = replace(subject, models=models)
    findings += about_models + _run(stages.of_models, subject)
    if method is None or find_errors(findings) or len(models) < len(recipe.references):
        return Result(subject, findings)

    try:
        architecture = read_architecture(recipe, models, options)
        subject = replace(subject, architecture=architecture)
        findings += _run(stages.of_architecture, subject)
        if find_errors(findings):
            return Result(subject, findings)
        plan = plan_merge(recipe, method, models, architecture, options)
    except MergeError as refusal:
        return Result(subject, [*findings, error(refusal.message)])
    subject = replace(subject, plan=plan)
    return Result(subject, findings + _run(stages.of_plan, subject))


def _run(checks: Sequence[Check], subject: Subject) -> list[Finding]:
    return [finding for check in checks for finding in check(subject)]
