"""Tune a recipe: read it, its models and the examples, search, and write what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions

from mergekit_spectral.checking.checks import plan_inspection
from mergekit_spectral.errors import MergeError, needs_extra
from mergekit_spectral.host.checkpoints import without_hub
from mergekit_spectral.host.devices import find_device
from mergekit_spectral.host.whole_merges import merge_into
from mergekit_spectral.recipe.editing import edit_recipe
from mergekit_spectral.recipe.reading import RecipeLike
from mergekit_spectral.reporting import extra
from mergekit_spectral.tuning.candidates import TunedRecipe, candidates
from mergekit_spectral.tuning.choice import Kind
from mergekit_spectral.tuning.examples import read_data_set
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.reading import (
    LONGEST,
    find_input,
    fingerprint_of,
    read_tasks,
    read_tokenizer,
    scored_set,
    work_folder,
)
from mergekit_spectral.tuning.record import NAME, ScoreRecord
from mergekit_spectral.tuning.results import Tuning
from mergekit_spectral.tuning.scorer import Say, Scorer
from mergekit_spectral.tuning.sets import ScoredSet
from mergekit_spectral.tuning.summary import comment
from mergekit_spectral.tuning.task_names import NamedTask, named_tasks
from mergekit_spectral.tuning.tuner import Tuner
from mergekit_spectral.whole_files import errors_as_sentences, move_up, require_own, unfinished

MOST_WEIGHTS = 5
"""Inputs whose weights are tuned at most."""
RECIPE, REPORT, PAGE = "tuned.yml", "report.json", "index.html"

PathLike = str | Path
T = TypeVar("T", str, PathLike)


def tune(
    recipe: RecipeLike,
    data: Mapping[PathLike, str | int | None] | Iterable[PathLike] = (),
    text: Iterable[PathLike] = (),
    tasks: Mapping[str, str | int | None] | Iterable[str] = (),
    *,
    task_search_path: Iterable[PathLike] = (),
    out: PathLike = "tuned",
    methods: Sequence[str] | None = None,
    density: Sequence[float] | None = None,
    rank: Sequence[float] | None = None,
    lambda_: tuple[float, float] = (0.1, 3.0),
    weights: bool = False,
    objective: Kind = "mean",
    limit: int | None = None,
    budget: float | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    merge: PathLike | None = None,
    seed: int = 0,
    lora_merge_cache: PathLike | None = None,
    allow_crimes: bool = False,
    trust_remote_code: bool = False,
    say: Say | None = None,
) -> Tuning:
    """Find the λ, density, rank and method for a recipe that are best on examples.

    One half of the examples chooses, the other half reports. Writes into `out`: ``tuned.yml``, the
    recipe with the values that were found; ``report.json``; and ``index.html``, a page that shows
    what was found, if the extra ``report`` is installed. A tuning that was stopped continues where
    it was, if it is called again with the same `out`. Models that are not on disk must be in the
    hub's cache. Data sets of tasks are downloaded.

    Args:
        recipe: the recipe: the path of its file, its text, its values as a mapping, or mergekit's
            `MergeConfiguration`.
        data: files or folders with examples. A mapping gives for each the input that was trained
            for it, by its name in the recipe or its number from 1, or None.
        text: files or folders of text, for perplexity.
        tasks: names of tasks or groups of lm-eval, or YAML files with ``tasks:`` as mergekit-evolve
            has them. A mapping gives an input for each, as for `data`.
        task_search_path: folders with tasks' YAML files, besides lm-eval's own.
        out: folder for the results.
        methods: merge methods to compare, besides the recipe as it is; by default the recipe's.
        density: densities to compare, for methods that have one; by default the recipe's.
        rank: ranks to compare, for methods that have one; by default the recipe's. Each is a number
            of directions (512) or a share of them (0.25).
        lambda_: the smallest and the largest λ. If the recipe's λ is a gradient or has filters,
            these are factors of it.
        weights: whether to tune the inputs' weights, too.
        objective: what is maximized: the mean of the data sets, the worst of them, or the mean
            normalized by the best input of each data set.
        limit: examples of each data set that are used at most.
        budget: seconds for the search; None for as long as it takes.
        device: that models are scored on; by default a GPU if there is one.
        dtype: in which models are scored; by default bfloat16 on a GPU, float32 on a CPU.
        merge: folder for the model, merged by the tuned recipe; None not to merge it.
        seed: of methods that draw at random.
        lora_merge_cache: folder for merged copies of LoRA inputs, which mergekit's own methods
            need; by default a temporary one.
        allow_crimes: whether to merge models of different architectures.
        trust_remote_code: whether models may run their own code.
        say: is called with a sentence at each step.

    Raises:
        MergeError: the recipe has an error, a model or a file is missing or cannot be read, a model
            does not fit the device, or `out` has files that are not a tuning's.
        ValueError: a range, a number or the objective is not one that can be searched.
    """
    say = say or (lambda _: None)
    out = Path(out)
    require_own(out, (RECIPE, REPORT, PAGE), NAME, "an earlier tuning")
    place = find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = Options(
        methods=methods or (),
        values={"density": density or (), "rank": rank or ()},
        scales=lambda_,
        weights=weights,
        objective=objective,
        budget=budget,
        device=place,
        dtype=find_dtype(dtype, place),
        seed=seed,
        limit=limit,
        merge=MergeOptions(
            lora_merge_cache=None if lora_merge_cache is None else str(lora_merge_cache),
            lora_merge_dtype="float32",
            allow_crimes=allow_crimes,
            trust_remote_code=trust_remote_code,
            cuda=place.type == "cuda",
            random_seed=seed,
            copy_tokenizer=False,
            write_model_card=False,
            quiet=True,
        ),
    )
    tuning, tuned = _search(
        recipe,
        [(Path(file), trained) for file, trained in _with_inputs(data)],
        [Path(file) for file in text],
        list(named_tasks((str(name), trained) for name, trained in _with_inputs(tasks))),
        [Path(folder) for folder in task_search_path],
        out,
        options,
        say,
    )
    with errors_as_sentences(out), unfinished(out) as new:
        (new / RECIPE).write_bytes(tuned.encode())
        (new / REPORT).write_text(json.dumps(asdict(tuning), indent=1) + "\n")
        if extra.is_installed():
            from mergekit_spectral.tuning.page import tuning_page

            (new / PAGE).write_text(tuning_page(tuning, tuned), encoding="utf-8")
            move_up(new, [REPORT, RECIPE, PAGE])
        else:
            say(needs_extra("the page", "report"))
            (out / PAGE).unlink(missing_ok=True)
            move_up(new, [REPORT, RECIPE])
    if merge is not None:
        say(f"merging into {merge}")
        with without_hub():
            _merge(tuned, Path(merge), out, options.merge)
    return tuning


def _with_inputs(
    sets: Mapping[T, str | int | None] | Iterable[T],
) -> list[tuple[T, str | None]]:
    """Return data sets, each with the input that was trained for it, or None."""
    inputs = sets if isinstance(sets, Mapping) else dict.fromkeys(sets)
    return [(each, None if name is None else str(name)) for each, name in inputs.items()]


def _search(
    source: RecipeLike,
    data: Sequence[tuple[Path, str | None]],
    text: Sequence[Path],
    tasks: Sequence[NamedTask],
    task_folders: Sequence[Path],
    out: Path,
    options: Options,
    say: Say,
) -> tuple[Tuning, str]:
    """Return what was found, and the text of the tuned recipe."""
    start = time.monotonic()
    plan = plan_inspection(source, options.merge, out)
    recipe = TunedRecipe(plan.recipe)
    compared = candidates(recipe, options.methods, options.values)
    base = plan.models[recipe.base]
    tokenizer = read_tokenizer(base, options.merge.trust_remote_code)
    longest = min(LONGEST, getattr(base.config, "max_position_embeddings", LONGEST))
    sets: list[ScoredSet[Any]] = [
        scored_set(
            read_data_set(file, text=is_text, limit=options.limit),
            None if name is None else find_input(name, recipe, file),
            tokenizer,
            longest,
        )
        for files, is_text in ((data, False), ([(file, None) for file in text], True))
        for file, name in files
    ]
    sets += read_tasks(tasks, task_folders, recipe, base, tokenizer, options.limit, say)
    if options.weights and len(recipe.inputs) > MOST_WEIGHTS:
        raise MergeError(
            f"{plan.recipe.path} has {len(recipe.inputs)} inputs, and each change of a weight is a "
            f"merge of its own; `--weights` is for at most {MOST_WEIGHTS}."
        )
    fingerprint = fingerprint_of(plan, tokenizer, options)
    with without_hub(), work_folder(out, fingerprint) as work:
        options = options.with_copies_in(work / "copies")
        scorer = Scorer(recipe, plan, options, work, ScoreRecord(out, fingerprint), say)
        tuning, changes = Tuner(recipe, compared, sets, scorer, options, say).run(start)
    return tuning, edit_recipe(plan.recipe.text.source, changes, comment(tuning))


def _merge(recipe: str, folder: Path, out: Path, options: MergeOptions) -> None:
    config = MergeConfiguration.model_validate(yaml.safe_load(recipe))
    with TemporaryDirectory(dir=out, prefix=".copies-") as copies:
        full = {
            "copy_tokenizer": True,
            "write_model_card": True,
            "lora_merge_cache": options.lora_merge_cache or copies,
        }
        merge_into(folder, config, options.model_copy(update=full), recipe)


def find_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return a dtype by its name, or the one that suits a device."""
    if isinstance(dtype, torch.dtype):
        return dtype
    found: torch.dtype = getattr(
        torch, dtype or ("bfloat16" if device.type == "cuda" else "float32")
    )
    return found
