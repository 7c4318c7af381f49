"""What a tuning reads before it searches: the tokenizer, the data sets, its own earlier work."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mergekit.common import ModelReference
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mergekit_spectral import __version__
from mergekit_spectral.errors import MergeError, first_line, needs_extra
from mergekit_spectral.host.models import OpenedModel, fingerprint_files
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.spectral import dtype_name
from mergekit_spectral.tuning.candidates import TunedRecipe
from mergekit_spectral.tuning.examples import DataSet, split
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.scorer import Say
from mergekit_spectral.tuning.scoring import prepare
from mergekit_spectral.tuning.sets import AnswerSet, ScoredSet, TextSet
from mergekit_spectral.tuning.task_names import NamedTask
from mergekit_spectral.whole_files import errors_as_sentences

LONGEST = 2048
"""Tokens of an example that are read at most."""


def read_tokenizer(base: OpenedModel, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer.

    Raises:
        MergeError: it has none, or transformers cannot load it.
    """
    folder = base.checkpoint.folder
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # transformers raises many
        raise MergeError(
            f"The base {base.reference} has no tokenizer that transformers can load from {folder} "
            f"({first_line(error)}); add its tokenizer's files, such as tokenizer.json."
        ) from error
    return tokenizer


def scored_set(
    data: DataSet,
    trained: ModelReference | None,
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
) -> AnswerSet:
    """Tokenize a data set, and split it.

    Raises:
        MergeError: it cannot be tokenized, or has fewer than two different examples.
    """
    items = prepare(data, data.examples, tokenizer, longest)
    if len({item.digest for item in items}) < 2:
        raise MergeError(
            f"{data.path} has one example, and two are needed: one to choose by, and one to report "
            "on."
        )
    choosing, reporting = split(items)
    kind = TextSet if data.kind == "text" else AnswerSet
    return kind(data.name, trained, choosing, reporting)


def read_tasks(
    tasks: Sequence[NamedTask],
    folders: Sequence[Path],
    recipe: TunedRecipe,
    base: OpenedModel,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    say: Say,
) -> list[ScoredSet[Any]]:
    """Read tasks of lm-eval.

    Raises:
        MergeError: lm-eval is not installed, or a task cannot be read.
    """
    if not tasks:
        return []
    if find_spec("lm_eval") is None:
        raise MergeError(needs_extra("tune --tasks", "tune"))
    inputs = [
        None if task.input is None else find_input(task.input, recipe, Path(task.name))
        for task in tasks
    ]
    say("reading the list of tasks")
    from mergekit_spectral.tuning.lm_eval_tasks import find_tasks, read_task_set

    known = find_tasks(folders)
    longest = getattr(base.config, "max_position_embeddings", LONGEST)
    sets: list[ScoredSet[Any]] = []
    for task, trained in zip(tasks, inputs, strict=True):
        say(f"reading task {task.name}")
        sets.append(read_task_set(task, trained, known, tokenizer, longest, limit))
    return sets


def find_input(name: str, recipe: TunedRecipe, file: Path) -> ModelReference:
    """Return the input of a name or of a number from 1.

    Raises:
        MergeError: there is none.
    """
    for number, model in enumerate(recipe.inputs, start=1):
        if name in (str(number), str(model), Path(str(model)).name):
            return model
    names = ", ".join(f"{number} ({model})" for number, model in enumerate(recipe.inputs, start=1))
    raise MergeError(
        f"{file}={name}: the recipe has no input {name}; name the input that was trained on "
        f"{file.name}, one of {names}."
    )


def fingerprint_of(plan: PlannedMerge, tokenizer: PreTrainedTokenizerBase, options: Options) -> str:
    """Return a digest that differs if scores may differ for a candidate, a scale and an item."""
    digest = hashlib.sha256(plan.recipe.text.source.encode())
    scoring = (__version__, dtype_name(options.dtype), options.device.type, options.seed, LONGEST)
    digest.update(repr((*scoring, len(tokenizer), tokenizer.chat_template)).encode())
    digest.update(fingerprint_files(plan.models.values()).encode())
    return digest.hexdigest()


@contextmanager
def work_folder(out: Path, fingerprint: str) -> Iterator[Path]:
    """Give the folder for a tuning's updates, which is kept if the tuning is stopped.

    Those of other tunings in `out` are removed.
    """
    name = f".tuning-{fingerprint[:12]}"
    with errors_as_sentences(out):
        for other in out.glob(".tuning-*"):
            if re.fullmatch(r"\.tuning-[0-9a-f]{12}", other.name) and other.name != name:
                shutil.rmtree(other, ignore_errors=True)
        work = out / name
        work.mkdir(parents=True, exist_ok=True)
    yield work
    shutil.rmtree(work, ignore_errors=True)
