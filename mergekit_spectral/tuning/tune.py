"""Tune a recipe: read it, its models and the examples, then search."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergekit.common import ModelReference
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mergekit_spectral import __version__
from mergekit_spectral.checking.checks import plan_inspection
from mergekit_spectral.errors import MergeError, first_line
from mergekit_spectral.host.models import OpenedModel, fingerprint_files
from mergekit_spectral.host.plan import PlannedMerge
from mergekit_spectral.recipe.text import Key
from mergekit_spectral.spectral import dtype_name
from mergekit_spectral.tuning.candidates import TunedRecipe, candidates
from mergekit_spectral.tuning.examples import DataSet, read_data_set, split
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.record import ScoreRecord
from mergekit_spectral.tuning.results import Tuning
from mergekit_spectral.tuning.scorer import Say, Scorer
from mergekit_spectral.tuning.scoring import prepare
from mergekit_spectral.tuning.tuner import ScoredSet, Tuner
from mergekit_spectral.whole_files import errors_as_sentences

LONGEST = 2048
"""Tokens of an example that are read at most."""
MOST_WEIGHTS = 5
"""Inputs whose weights are tuned at most."""


def tune(
    path: Path,
    data: Sequence[tuple[Path, str | None]],
    text: Sequence[Path],
    out: Path,
    options: Options,
    say: Say,
) -> tuple[Tuning, dict[Key, Any]]:
    """Tune a recipe.

    Args:
        path: the recipe.
        data: files with examples, each with the input that was trained for it, by its name in the
            recipe or its number from 1, or None.
        text: files or folders of text.
        out: the folder for the record and the updates.
        options: what is searched.
        say: reports progress, a sentence at a time.

    Returns:
        What was found, and the changes of the recipe by their places.

    Raises:
        MergeError: the recipe has an error, a model or a file is missing or cannot be read, or
            does not fit the device.
    """
    start = time.monotonic()
    plan = plan_inspection(path, options.merge, out)
    recipe = TunedRecipe(plan.recipe)
    compared = candidates(recipe, options.methods, options.densities)
    base = plan.models[recipe.base]
    tokenizer = read_tokenizer(base, options.merge.trust_remote_code)
    longest = min(LONGEST, getattr(base.config, "max_position_embeddings", LONGEST))
    sets = [
        scored_set(
            read_data_set(file, text=is_text, limit=options.limit),
            None if name is None else find_input(name, recipe, file),
            tokenizer,
            longest,
        )
        for files, is_text in ((data, False), ([(file, None) for file in text], True))
        for file, name in files
    ]
    if options.weights and len(recipe.inputs) > MOST_WEIGHTS:
        raise MergeError(
            f"{path} has {len(recipe.inputs)} inputs, and each change of a weight is a merge of "
            f"its own; `--weights` is for at most {MOST_WEIGHTS}."
        )
    fingerprint = fingerprint_of(path, plan, tokenizer, options)
    with work_folder(out, fingerprint) as work:
        options = _with_copies_in(work, options)
        scorer = Scorer(recipe, plan, options, work, ScoreRecord(out, fingerprint), say)
        tuner = Tuner(recipe, compared, sets, scorer, options, say)
        return tuner.run(start)


def _with_copies_in(work: Path, options: Options) -> Options:
    """Have mergekit merge adapters into copies in the work folder, unless there is another one."""
    if options.merge.lora_merge_cache:
        return options
    merge = options.merge.model_copy(update={"lora_merge_cache": str(work / "copies")})
    return replace(options, merge=merge)


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
) -> ScoredSet:
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
    return ScoredSet(data, trained, tuple(choosing), tuple(reporting))


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


def fingerprint_of(
    path: Path, plan: PlannedMerge, tokenizer: PreTrainedTokenizerBase, options: Options
) -> str:
    """Return a digest that differs if scores may differ for a candidate, a scale and an item."""
    digest = hashlib.sha256(path.read_bytes())
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
