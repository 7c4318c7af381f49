"""Inspect a recipe's tensors one by one, and record each so that a stopped run can continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mergekit.options import MergeOptions
from pydantic import TypeAdapter

from mergekit_spectral import __version__
from mergekit_spectral.checking.checks import plan_inspection
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.models import fingerprint_files, lend_opened_files
from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.inspecting.inputs import (
    SkippedTensor,
    Updates,
    inputs_of,
    matrices,
    read_updates,
    select_tensors,
)
from mergekit_spectral.inspecting.weights import Values, WeightReport, inspect_weight
from mergekit_spectral.recipe.reading import RecipeLike
from mergekit_spectral.spectral import LinAlgError
from mergekit_spectral.whole_files import Record

RECORD = "tensors.jsonl"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OtherReport:
    """Measurements of a tensor that is not inspected as a matrix: a vector or an embedding.

    Attributes:
        name: name of the tensor.
        norms: Frobenius norms of the inputs' updates, in the recipe's order; None for an input
            that is not merged into this tensor.
    """

    name: str
    norms: Values


@dataclass(frozen=True)
class Inspection:
    """Measurements of a recipe's inputs.

    Attributes:
        recipe: name of the recipe's file.
        method: name of the merge method.
        base: name of the base model; several are separated by commas.
        inputs: names of the other models, in the recipe's order.
        lora: whether all inputs are LoRA inputs, written base+adapter.
        weights: reports of the matrices that at least one input changes.
        others: reports of the vectors and embeddings that at least one input changes.
        unchanged: names of the inspected tensors that no input changes.
        left_out: tensors that were not inspected.
    """

    recipe: str
    method: str
    base: str
    inputs: tuple[str, ...]
    lora: bool
    weights: tuple[WeightReport, ...]
    others: tuple[OtherReport, ...]
    unchanged: tuple[str, ...]
    left_out: tuple[SkippedTensor, ...]


@dataclass(frozen=True)
class TensorReport:
    """Measurements of one tensor, which are one line of the record.

    Attributes:
        name: name of the tensor.
        weights: reports of its matrices that at least one input changes.
        other: report of a vector or an embedding; None for matrices, and if no input changes it.
    """

    name: str
    weights: tuple[WeightReport, ...]
    other: OtherReport | None


def measure(
    recipe: RecipeLike,
    folder: Path | None,
    options: MergeOptions,
    *,
    pattern: str | None,
    sample: int | None,
    progress: Progress,
) -> tuple[str, Inspection]:
    """Measure the updates of a recipe's inputs, tensor by tensor.

    Args:
        recipe: the recipe.
        folder: folder of the record. A stopped inspection continues from an earlier record. None
            to record nothing.
        options: mergekit's options.
        pattern: glob that the names of the tensors must match; None for all tensors.
        sample: number of tensors of each kind of weight, evenly over the layers; None for all.
        progress: called with the number of finished tensors and the number of all tensors.

    Returns:
        The recipe's text, and the measurements of all selected tensors.

    Raises:
        MergeError: if the recipe has an error or no base model, a model is not on this machine,
            no tensor can be inspected, an update is out of range, or the folder cannot be
            written to.
    """
    merge = _plan(recipe, folder, options)
    path, config = merge.recipe.path, merge.recipe.config
    bases = sorted(merge.recipe.base_models, key=str)
    inputs = inputs_of(merge.recipe)
    tensors, left_out = select_tensors(merge.tensors, inputs, pattern, sample)
    if not tensors:
        named = f", and its name must match {pattern}" if pattern else ""
        example = next((f" ({each.name} is {each.why})" for each in left_out if each.why), "")
        raise MergeError(
            f"{path}: there is no tensor to inspect. A tensor must be in the base model and in "
            f"an input, with the same shape{named}{example}."
        )
    record = None
    if folder is not None:
        record = Record(folder / RECORD, _fingerprint(merge), _LINE, "the inspection")
    known = {report.name: report for report in (record.steps if record else ())}
    with lend_opened_files(config, merge.models, options):
        for number, tensor in enumerate(tensors):
            progress(number, len(tensors))
            if tensor.name not in known:
                known[tensor.name] = report = _inspect_tensor(tensor, read_updates(tensor, inputs))
                _check_finite(report)
                if record:
                    record.add(report)
    progress(len(tensors), len(tensors))
    reports = [known[tensor.name] for tensor in tensors]
    return merge.recipe.text.source, Inspection(
        recipe=path.name,
        method=config.merge_method,
        base=", ".join(map(str, bases)),
        inputs=tuple(map(str, inputs)),
        lora=all(model.lora for model in inputs),
        weights=tuple(weight for report in reports for weight in report.weights),
        others=tuple(report.other for report in reports if report.other),
        unchanged=tuple(r.name for r in reports if not r.weights and not r.other),
        left_out=tuple(left_out),
    )


def _plan(recipe: RecipeLike, folder: Path | None, options: MergeOptions) -> PlannedMerge:
    merge = plan_inspection(recipe, options, folder or Path())
    if not merge.recipe.base_models:
        raise MergeError(
            f"{merge.recipe.path} names no base model, so there are no updates to inspect; set "
            "`base_model` to the model that the inputs were fine-tuned from."
        )
    return merge


def _inspect_tensor(tensor: PlannedTensor, updates: Updates) -> TensorReport:
    if len(updates.shape) < 2 or tensor.vocabulary:
        norms = tuple(
            None if delta is None else float(f"{delta.matrix.norm:.4g}") for delta in updates.deltas
        )
        other = OtherReport(tensor.name, norms) if any(norms) else None
        return TensorReport(tensor.name, (), other)
    direction = str(tensor.shared.get("direction", "auto"))
    try:
        found = [
            inspect_weight(name, deltas, base_norm, direction)
            for name, deltas, base_norm in matrices(updates)
        ]
    except LinAlgError as error:
        raise _out_of_range(tensor.name, f"cannot be decomposed: {error}") from error
    return TensorReport(tensor.name, tuple(filter(None, found)), None)


def _check_finite(report: TensorReport) -> None:
    """Raise `MergeError` if a number in a report is a NaN or an infinity."""
    try:
        json.dumps(asdict(report), allow_nan=False)
    except ValueError as error:
        raise _out_of_range(report.name, "have squares that are out of range") from error


def _out_of_range(name: str, why: str) -> MergeError:
    return MergeError(
        f"The updates of tensor {name} {why}; check this tensor in each input for very large or "
        "very small values."
    )


def _fingerprint(merge: PlannedMerge) -> str:
    """Return a digest that differs if the recipe, a model's file or this program has changed."""
    digest = hashlib.sha256(merge.recipe.text.source.encode())
    digest.update(f"{__version__} {TypeAdapter(TensorReport).json_schema()}".encode())
    digest.update(fingerprint_files(merge.models.values()).encode())
    return digest.hexdigest()


_LINE = TypeAdapter(tuple[str, TensorReport])
