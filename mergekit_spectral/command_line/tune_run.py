"""Run ``mergekit-spectral tune``: write the tuned recipe and the report, and print a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from rich.console import Console
from rich.markup import escape

from mergekit_spectral.command_line.tables import print_table
from mergekit_spectral.command_line.transformers_output import silence_transformers
from mergekit_spectral.errors import MergeError
from mergekit_spectral.host.whole_merges import merge_into
from mergekit_spectral.recipe.editing import edit_recipe
from mergekit_spectral.tuning.choice import Kind
from mergekit_spectral.tuning.options import Options
from mergekit_spectral.tuning.record import NAME
from mergekit_spectral.tuning.results import Tuning
from mergekit_spectral.tuning.summary import comment, in_words, table
from mergekit_spectral.tuning.tune import tune
from mergekit_spectral.whole_files import errors_as_sentences, move_up, require_own, unfinished

RECIPE, REPORT = "tuned.yml", "report.json"


def tune_and_write(
    recipe: Path,
    data: Sequence[str],
    text: Sequence[Path],
    *,
    out: Path,
    methods: Sequence[str] | None,
    densities: Sequence[float] | None,
    scales: tuple[float, float],
    weights: bool,
    objective: Kind,
    limit: int | None,
    budget: float | None,
    device: str | None,
    dtype: str | None,
    merge: Path | None,
    seed: int,
    lora_merge_cache: str | None,
    allow_crimes: bool,
    trust_remote_code: bool,
    console: Console,
) -> Tuning:
    """Tune a recipe, write what was found, and print it.

    Raises:
        MergeError: the recipe, a model or a data set cannot be used, or a folder not be written to.
    """
    silence_transformers()
    require_own(out, (RECIPE, REPORT), NAME, "an earlier tuning")
    place = find_device(device)
    kind = getattr(torch, dtype or ("bfloat16" if place.type == "cuda" else "float32"))
    options = MergeOptions(
        lora_merge_cache=lora_merge_cache,
        lora_merge_dtype="float32",
        allow_crimes=allow_crimes,
        trust_remote_code=trust_remote_code,
        cuda=place.type == "cuda",
        random_seed=seed,
        copy_tokenizer=False,
        write_model_card=False,
        quiet=True,
    )
    with progress(console) as say:
        tuning, changes = tune(
            recipe,
            [split_input(each) for each in data],
            text,
            out,
            Options(
                methods=methods or (),
                densities=densities or (),
                scales=scales,
                weights=weights,
                objective=objective,
                budget=budget,
                device=place,
                dtype=kind,
                seed=seed,
                limit=limit,
                merge=options,
            ),
            say,
        )
    original = recipe.read_bytes().decode("utf-8")
    tuned = edit_recipe(original, changes, comment(tuning))
    with errors_as_sentences(out), unfinished(out) as new:
        (new / RECIPE).write_bytes(tuned.encode())
        (new / REPORT).write_text(json.dumps(asdict(tuning), indent=1) + "\n")
        move_up(new, [REPORT, RECIPE])
    header, rows = table(tuning)
    print_table("On examples that were not used to choose", header, rows, words=header[:1])
    for sentence in in_words(tuning):
        click.echo(f"- {sentence}")
    click.echo(f"The recipe is {out / RECIPE}, and all numbers are in {out / REPORT}.")
    if merge is not None:
        config = MergeConfiguration.model_validate(yaml.safe_load(tuned))
        console.print(f"Merging into {merge}")
        with TemporaryDirectory(dir=out, prefix=".copies-") as copies:
            full = {
                "copy_tokenizer": True,
                "write_model_card": True,
                "lora_merge_cache": lora_merge_cache or copies,
            }
            merge_into(merge, config, options.model_copy(update=full), tuned)
    return tuning


@contextmanager
def progress(console: Console) -> Iterator[Callable[[str], None]]:
    """Give a function that shows a sentence in place of the one before; in a pipe, one a line."""
    if not console.is_terminal:
        yield lambda sentence: console.print(sentence, markup=False, soft_wrap=True)
        return
    with console.status("reading the recipe") as status:
        yield lambda sentence: status.update(escape(sentence))


def split_input(data: str) -> tuple[Path, str | None]:
    """Split ``FILE=INPUT``. A file whose own name has a ``=`` is taken as it is."""
    file, equals, name = data.partition("=")
    if not equals or Path(data).exists():
        return Path(data), None
    return Path(file), name


def find_device(name: str | None) -> torch.device:
    """Return the device of a name, or the best one.

    Raises:
        MergeError: PyTorch has no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise MergeError(
            f"`--device` {name} cannot be used ({str(error).splitlines()[0]}); use cpu, or cuda "
            "with a PyTorch that was built for it."
        ) from error
    return device
