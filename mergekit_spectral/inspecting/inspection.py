"""Look at all tensors of a recipe one after the other, with a record to continue from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mergekit.options import MergeOptions
from pydantic import TypeAdapter

from mergekit_spectral import __version__
from mergekit_spectral.adapters.adapter_files import CONFIG_NAME
from mergekit_spectral.checking.checks import plan_inspection
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.models import lend_opened_files
from mergekit_spectral.host.plan import PlannedMerge, PlannedTensor
from mergekit_spectral.inspecting.inputs import (
    SkippedTensor,
    Updates,
    chosen,
    inputs_of,
    matrices,
    read_updates,
)
from mergekit_spectral.inspecting.weights import Values, WeightReport, inspect_weight
from mergekit_spectral.spectral import LinAlgError
from mergekit_spectral.whole_files import errors_as_sentences, move_up, unfinished

RECORD = "tensors.jsonl"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class OtherReport:
    """A tensor that is no matrix, or that has an axis of tokens.

    Attributes:
        name: of the tensor.
        norms: of the inputs' updates, in the recipe's order; None of one that it is not merged
            with.
    """

    name: str
    norms: Values


@dataclass(frozen=True)
class Inspection:
    """What there is to say about a recipe's inputs.

    Attributes:
        recipe: its file's name.
        method: that it merges by.
        base: the base model.
        inputs: the others, in the recipe's order.
        lora: whether all of these are adapters on the base.
        weights: the matrices that any input changes.
        others: the vectors and embeddings that any input changes.
        unchanged: the tensors that none does.
        left_out: the tensors that were not looked at.
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
    """What was found at one tensor: the line of a record.

    Attributes:
        name: of the tensor.
        weights: its matrices that any input changes.
        other: what is known of it if it is none.
    """

    name: str
    weights: tuple[WeightReport, ...]
    other: OtherReport | None


def inspect(
    recipe: Path,
    folder: Path,
    options: MergeOptions,
    *,
    pattern: str | None,
    sample: int | None,
    progress: Progress,
) -> Inspection:
    """Look at a recipe's inputs.

    Args:
        recipe: the recipe's file.
        folder: where the record goes, from which a stopped inspection continues.
        options: mergekit's.
        pattern: a glob of the tensors' names to look at; all if None.
        sample: how many of each kind of weight, evenly over the layers; all if None.
        progress: is called with the number of tensors that are done, and of all.

    Raises:
        MergeError: the recipe has an error or no base, a model is not on this machine, or the
            folder cannot be written to.
    """
    merge = _plan(recipe, folder, options)
    config = merge.recipe.config
    bases = sorted(merge.recipe.base_models, key=str)
    inputs = inputs_of(merge.recipe)
    tensors, left_out = chosen(merge.tensors, inputs, pattern, sample)
    if not tensors:
        called = f" and whose name is like {pattern}" if pattern else ""
        why = next((f"; {each.name} is {each.why}" for each in left_out if each.why), "")
        raise MergeError(
            f"{recipe}: there is no tensor that the base and an input have{called}{why}."
        )
    done = _Record(folder / RECORD, _fingerprint(recipe, merge))
    with lend_opened_files(config, merge.models, options):
        for number, tensor in enumerate(tensors):
            progress(number, len(tensors))
            if tensor.name not in done.reports:
                done.add(_finite(_looked_at(tensor, read_updates(tensor, inputs))))
    progress(len(tensors), len(tensors))
    reports = [done.reports[tensor.name] for tensor in tensors]
    return Inspection(
        recipe=recipe.name,
        method=config.merge_method,
        base=", ".join(map(str, bases)),
        inputs=tuple(map(str, inputs)),
        lora=all(model.lora for model in inputs),
        weights=tuple(weight for report in reports for weight in report.weights),
        others=tuple(report.other for report in reports if report.other),
        unchanged=tuple(r.name for r in reports if not r.weights and not r.other),
        left_out=tuple(left_out),
    )


def _plan(recipe: Path, folder: Path, options: MergeOptions) -> PlannedMerge:
    merge = plan_inspection(recipe, options, folder)
    if not merge.recipe.base_models:
        raise MergeError(
            f"{recipe} names no base model, so there are no updates to look at; set `base_model` "
            "to the model that the inputs were fine-tuned from."
        )
    return merge


def _looked_at(tensor: PlannedTensor, updates: Updates) -> TensorReport:
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


def _finite(report: TensorReport) -> TensorReport:
    """Return a report, or raise `MergeError` if a number in it is a NaN or an infinity."""
    try:
        json.dumps(asdict(report), allow_nan=False)
    except ValueError as error:
        raise _out_of_range(report.name, "have squares that are out of range") from error
    return report


def _out_of_range(name: str, why: str) -> MergeError:
    return MergeError(
        f"The updates of tensor {name} {why}; look at the inputs' values there, which must be very "
        "large or very small."
    )


def _fingerprint(recipe: Path, merge: PlannedMerge) -> str:
    """Return what changes when the recipe, a file of its models or this program does."""
    digest = hashlib.sha256(recipe.read_bytes())
    digest.update(f"{__version__} {TypeAdapter(TensorReport).json_schema()}".encode())
    for model in merge.models.values():
        configs = [model.checkpoint.folder / "config.json"]
        if model.adapter_files:
            configs.append(model.adapter_files.weights.parent / CONFIG_NAME)
        for file in (*model.files, *configs):
            state = file.stat()
            digest.update(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()


class _Record:
    """A file with a line for each tensor that has been looked at.

    Every line has the fingerprint that it holds for, so that two inspections which write to one
    file at the same time cannot take each other's. A line that is damaged, or was cut off, is left
    out, and its tensor is looked at again.

    Args:
        path: of the file.
        fingerprint: of recipe and models.

    Raises:
        MergeError: the file cannot be read or written.
    """

    def __init__(self, path: Path, fingerprint: str):
        self._path = path
        self._fingerprint = fingerprint
        with errors_as_sentences(path.parent):
            if path.exists() and not path.is_file():
                raise MergeError(
                    f"{path} is not a file; it is where the inspection is recorded, so remove it, "
                    "or name another folder with --out."
                )
            lines = path.read_bytes().split(b"\n") if path.exists() else []
            self.reports = dict(filter(None, (self._report(line) for line in lines)))
            with unfinished(path.parent) as new:
                kept = map(self._line, self.reports.values())
                (new / path.name).write_text("".join(kept))
                move_up(new, [path.name])

    def add(self, report: TensorReport) -> None:
        """Remember one tensor.

        Raises:
            MergeError: the file cannot be written.
        """
        self.reports[report.name] = report
        with errors_as_sentences(self._path.parent), self._path.open("a") as file:
            file.write(self._line(report))

    def _line(self, report: TensorReport) -> str:
        return json.dumps([self._fingerprint, asdict(report)]) + "\n"

    def _report(self, line: bytes) -> tuple[str, TensorReport] | None:
        try:
            fingerprint, report = _LINE.validate_json(line)
        except ValueError:
            return None
        return (report.name, report) if fingerprint == self._fingerprint else None


_LINE = TypeAdapter(tuple[str, TensorReport])
