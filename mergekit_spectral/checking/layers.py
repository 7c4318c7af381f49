"""Architectures, and which layers of which model go where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration, OutputSliceDefinition

from mergekit_spectral.host.models import CheckedModel
from mergekit_spectral.host.plan import ModelArchitecture
from mergekit_spectral.recipe.findings import Findings
from mergekit_spectral.recipe.spelling import meant
from mergekit_spectral.recipe.text import Key


def check_architectures(
    models: Mapping[ModelReference, CheckedModel],
    named: Mapping[ModelReference, Key],
    findings: Findings,
) -> None:
    """Check that all models are of one architecture, where mergekit knows those of all."""
    known = [model.architecture for model in models.values()]
    if None in known or all(info == known[0] for info in known):
        return
    kinds: dict[str, list[str]] = defaultdict(list)
    for reference, model in models.items():
        kinds[", ".join(model.config.architectures or [])].append(str(reference))
    listed = "; ".join(f"{kind} in {', '.join(names)}" for kind, names in kinds.items())
    findings.error(
        "the models are of different architectures, which mergekit merges only with "
        f"--allow-crimes: {listed}.",
        named[next(m for m, info in zip(models, known, strict=True) if info != known[0])],
    )


def check_layers(
    config: MergeConfiguration,
    architecture: ModelArchitecture,
    models: Mapping[ModelReference, CheckedModel],
    findings: Findings,
) -> None:
    """Check that inputs side by side have as many layers, and slices none that are not there."""
    unknown = [name for name in config.modules or {} if name not in architecture.modules]
    for name in unknown:
        told = f"the models have no module {name}; {meant(name, architecture.modules)}"
        findings.error(told, ("modules", name))
    for name, definition in architecture.modules.items():
        if config.modules and not unknown and name not in config.modules:
            findings.warning(
                f"the models' module {name} is not in `modules`, so the merged model has none of "
                "its weights.",
                ("modules",),
            )
        counts = {
            reference: definition.architecture.num_layers(model.config)
            for reference, model in models.items()
        }
        module = (config.modules or {}).get(name)
        key: Key = ("modules", name) if module else ()
        if side_by_side := config.models or (module and module.models):
            inputs = {config.base_model, *(each.model for each in side_by_side)}
            own = {reference: count for reference, count in counts.items() if reference in inputs}
            _check_counts(own, findings, (*key, "models"))
        slices = (module.slices if module else config.slices) or []
        for number, part in enumerate(slices):
            _check_slice(part, counts, findings, (*key, "slices", number))


def _check_counts(counts: Mapping[ModelReference, int], findings: Findings, key: Key) -> None:
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in {reference}" for reference, count in counts.items())
        findings.error(
            f"the models must have one number of layers, but there are {listed}; name the layers "
            "to merge in `slices`.",
            key,
        )


def _check_slice(
    part: OutputSliceDefinition, counts: Mapping[ModelReference, int], findings: Findings, key: Key
) -> None:
    lengths = {
        str(source.model): source.layer_range[1] - source.layer_range[0] for source in part.sources
    }
    # mergekit takes slices without layers as long as no source has any.
    tell = findings.error if max(lengths.values(), default=0) > 0 else findings.warning
    for number, source in enumerate(part.sources):
        start, stop = source.layer_range
        own = (*key, "sources", number, "layer_range")
        if start < 0 or start >= stop:
            (findings.error if start < 0 else tell)(
                f"layer_range [{start}, {stop}] holds no layer; the first number is that of the "
                "first layer, from 0, the second one more than that of the last.",
                own,
            )
            del lengths[str(source.model)]
            continue
        if source.model in counts and stop > counts[source.model]:
            findings.error(
                f"layer_range [{start}, {stop}] goes beyond the {counts[source.model]} layers of "
                f"{source.model}; its end is at most {counts[source.model]}.",
                own,
            )
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} of {model}" for model, length in lengths.items())
        findings.error(f"the sources of a slice must be of one length, but it has {listed}.", key)
