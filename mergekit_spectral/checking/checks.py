"""List all checks in the order they are made; report on a recipe, or plan an inspection."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mergekit.options import MergeOptions

from mergekit_spectral.checking.basics import check_base, check_dtypes, check_method
from mergekit_spectral.checking.buffers import check_buffers
from mergekit_spectral.checking.configs import check_configs
from mergekit_spectral.checking.copies import check_copies, check_inputs_in_factors
from mergekit_spectral.checking.duplicates import check_duplicates
from mergekit_spectral.checking.estimate import check_room, estimate_costs
from mergekit_spectral.checking.hub_names import check_hub_names
from mergekit_spectral.checking.layers import check_architectures, check_layers
from mergekit_spectral.checking.merged_together import check_merged_together
from mergekit_spectral.checking.missing_tensors import check_left_out, check_missing_tensors
from mergekit_spectral.checking.out_folder import check_out_folder
from mergekit_spectral.checking.parameter_values import (
    check_parameters,
    check_required_parameters,
)
from mergekit_spectral.checking.planned_parameters import (
    check_della,
    check_filters,
    check_weights,
)
from mergekit_spectral.checking.report import Report
from mergekit_spectral.checking.shapes import check_shapes
from mergekit_spectral.checking.subject import Stages, Subject, run_stages
from mergekit_spectral.checking.tokenizers import check_tokenizers
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.checkpoints import NotDownloadedError, without_hub
from mergekit_spectral.host.hub import HubModels, read_absent_models
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.recipe.findings import Finding, find_errors, locate, sort_by_line
from mergekit_spectral.recipe.reading import Reading, Recipe, RecipeLike, read_recipe

OF_INPUTS = Stages(
    of_recipe=(
        check_method,
        check_base,
        check_merged_together,
        check_parameters,
        check_required_parameters,
        check_dtypes,
    ),
    of_models=(
        check_tokenizers,
        check_duplicates,
        check_configs,
        check_architectures,
    ),
    of_architecture=(check_layers,),
    of_plan=(
        check_missing_tensors,
        check_shapes,
        check_buffers,
        check_left_out,
        check_filters,
        check_della,
        check_weights,
    ),
)
"""Checks of a recipe and its models, before a merge or an inspection."""

OF_MERGE = replace(
    OF_INPUTS,
    of_models=(*OF_INPUTS.of_models, check_copies, check_out_folder, check_hub_names),
)
"""Checks before a merge."""

OF_INSPECTION = replace(
    OF_INPUTS,
    of_models=(*OF_INPUTS.of_models, check_inputs_in_factors),
)
"""Checks before an inspection, which reads adapters in factors for every method."""


def check(
    recipe: RecipeLike,
    out: str | Path = ".",
    options: MergeOptions | None = None,
    *,
    hub: bool = False,
) -> Report:
    """Check a recipe by its models' configurations and the headers of their files.

    Samples of weights are read too, to find inputs that are equal.

    Args:
        recipe: the recipe, for any of mergekit's methods: the path of its file, its text, its
            values as a mapping, or mergekit's `MergeConfiguration`.
        out: the folder of the merged model, to check it and the free space on its disk.
        options: mergekit's options, with which the merge would be run.
        hub: whether to read the headers of models that are not on this machine on the Hub. Without
            it, the Hub is not asked.

    Returns:
        The findings, each with its severity, line and message, and what the merge takes. Printed,
        it is what ``mergekit-spectral check`` prints.

    Raises:
        MergeError: the recipe's file is missing, a file cannot be read, or the Hub cannot be
            reached.
    """
    options = options or MergeOptions()
    try:
        reading = read_recipe(recipe)
        if reading.recipe is None:
            return Report(reading.path, sort_by_line(reading.findings))
        trusted = options.trust_remote_code
        asked = read_absent_models(reading.recipe, trusted) if hub else without_hub()
        with asked as found:
            report = _report(reading, _subject(reading.recipe, options, Path(out), found))
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else first_line(error)
        raise MergeError(f"The check cannot read {what}.") from error
    if found is None:
        return report
    return replace(report, downloads={str(model): n for model, n in found.downloads.items()})


def _report(reading: Reading, subject: Subject) -> Report:
    recipe, result = subject.recipe, run_stages(OF_MERGE, subject)
    findings = [*reading.findings, *result.findings]
    costs = None
    if result.subject.plan is not None:
        costs = estimate_costs(result.subject.plan, subject.out)
    findings += check_room(costs, result.subject)
    unchecked = None
    if costs is None:
        failed = bool(find_errors(findings))
        unchecked = "until the errors are fixed" if failed else "until all models are local"
    located = locate(findings, recipe.text)
    method, plan = recipe.config.merge_method, result.subject.plan
    return Report(recipe.path, sort_by_line(located), method, costs, unchecked, plan=plan)


def plan_inspection(recipe: RecipeLike, options: MergeOptions, out: Path) -> PlannedMerge:
    """Return mergekit's plan of a recipe whose inputs are to be inspected.

    Args:
        recipe: the recipe.
        options: mergekit's.
        out: where the report goes.

    Raises:
        MergeError: the recipe has an error, or a model is not on this machine.
    """
    plan, _ = _plan(OF_INSPECTION, recipe, options, out)
    return plan


def plan_whole_merge(
    recipe: RecipeLike, options: MergeOptions, out: Path
) -> tuple[PlannedMerge, list[Finding]]:
    """Return mergekit's plan of a merge, and the findings that are no errors.

    Args:
        recipe: the recipe.
        options: mergekit's.
        out: where the merged model goes.

    Raises:
        NotDownloadedError: nothing is wrong but that a model is not on this machine.
        MergeError: the recipe or a model has an error.
    """
    return _plan(OF_MERGE, recipe, options, out)


def _plan(
    stages: Stages, recipe: RecipeLike, options: MergeOptions, out: Path
) -> tuple[PlannedMerge, list[Finding]]:
    reading = read_recipe(recipe)
    findings, plan = list(reading.findings), None
    if reading.recipe is not None:
        result = run_stages(stages, _subject(reading.recipe, options, out))
        findings = locate([*findings, *result.findings], reading.recipe.text)
        plan = result.subject.plan
    findings = list(sort_by_line(findings))
    absent = [finding for finding in findings if finding.absent]
    errors = find_errors(findings)
    reasons = [*errors, *absent]
    if plan is None or errors:
        kind = MergeError if errors else NotDownloadedError
        path, first = reading.path, reasons[0]
        see = f" See `mergekit-spectral check {path}`." if path.is_file() else ""
        raise kind(f"{first.place(path)}: {first.message}{see}")
    return plan, findings


def _subject(
    recipe: Recipe, options: MergeOptions, out: Path, hub: HubModels | None = None
) -> Subject:
    method = find_method(recipe.config.merge_method)
    return Subject(recipe, options, out, method, hub or HubModels())
