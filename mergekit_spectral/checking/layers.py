"""Check the models' architectures, and which layers of which model go where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from mergekit.common import ModelReference

from mergekit_spectral.checking.subject import Subject
from mergekit_spectral.recipe.findings import Finding, error, suggest_name, warning
from mergekit_spectral.recipe.sections import Group
from mergekit_spectral.recipe.text import Key


def check_architectures(subject: Subject) -> Iterator[Finding]:
    """Check that all models have one architecture, unless mergekit does not know that of one."""
    models = subject.models
    known = [model.architecture for model in models.values()]
    if subject.options.allow_crimes or None in known or all(info == known[0] for info in known):
        return
    kinds: dict[str, list[str]] = defaultdict(list)
    for reference, model in models.items():
        kinds[", ".join(model.config.architectures or [])].append(str(reference))
    listed = "; ".join(f"{kind} in {', '.join(names)}" for kind, names in kinds.items())
    first = next(m for m, info in zip(models, known, strict=True) if info != known[0])
    yield error(
        "the models have different architectures, which mergekit merges only with "
        f"--allow-crimes: {listed}.",
        subject.recipe.references[first],
    )


def check_layers(subject: Subject) -> Iterator[Finding]:
    """Check that models side by side have as many layers, and that models have their slices."""
    architecture = subject.known_architecture
    modules, groups = subject.recipe.config.modules or {}, subject.recipe.groups
    unknown = [name for name in modules if name not in architecture.modules]
    for name in unknown:
        message = f"the models have no module {name}; {suggest_name(name, architecture.modules)}"
        yield error(message, ("modules", name))
    for name, definition in architecture.modules.items():
        if modules and not unknown and name not in modules:
            yield warning(
                f"the models' module {name} is not in `modules`, so the merged model has none of "
                "its weights.",
                ("modules",),
            )
        counts = {
            reference: definition.architecture.num_layers(model.config)
            for reference, model in subject.models.items()
        }
        for group in groups:
            if group.module not in (None, name):
                continue
            if group.is_slice:
                yield from _check_slice(group, counts)
            else:
                inputs = {subject.recipe.config.base_model, *group.models}
                own = {model: count for model, count in counts.items() if model in inputs}
                yield from _check_counts(own, group.key)


def _check_counts(counts: Mapping[ModelReference, int], key: Key) -> Iterator[Finding]:
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in {reference}" for reference, count in counts.items())
        yield error(
            f"the models must have the same number of layers, but there are {listed}; name the "
            "layers to merge in `slices`.",
            key,
        )


def _check_slice(group: Group, counts: Mapping[ModelReference, int]) -> Iterator[Finding]:
    ranges = {section.model: section.layers for section in group.inputs if section.layers}
    lengths = {str(model): stop - start for model, (start, stop) in ranges.items()}
    # mergekit accepts slices without layers as long as no source has any.
    some_have_layers = max(lengths.values(), default=0) > 0
    for section in group.inputs:
        assert section.model is not None
        assert section.layers is not None
        start, stop = section.layers
        key = (*section.key[:-1], "layer_range")
        if start < 0 or start >= stop:
            kind = error if start < 0 or some_have_layers else warning
            yield kind(
                f"layer_range [{start}, {stop}] has no layers; the first number is that of the "
                "first layer, from 0, and the second is one more than that of the last.",
                key,
            )
            lengths.pop(str(section.model), None)
        elif section.model in counts and stop > counts[section.model]:
            yield error(
                f"layer_range [{start}, {stop}] goes beyond the {counts[section.model]} layers of "
                f"{section.model}; its end is at most {counts[section.model]}.",
                key,
            )
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{length} of {model}" for model, length in lengths.items())
        yield error(
            f"the sources of a slice must have the same number of layers, but these have {listed}.",
            group.key[:-1],
        )
