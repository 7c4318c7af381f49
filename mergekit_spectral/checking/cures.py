"""Write what cures a finding, to be pasted: keys of the recipe, or commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from mergekit_spectral.checking.subject import Subject


def in_recipe(keys: Mapping[str, object]) -> str:
    """Return keys of the recipe's first level as YAML."""
    return yaml.safe_dump(dict(keys), sort_keys=False, width=10**6).rstrip()


def merge_through_copies(subject: Subject) -> str | None:
    """Return the command that runs the recipe with mergekit's merged copies of LoRA inputs.

    None is returned for a recipe that is in no file.
    """
    recipe, out = subject.recipe.path, out_folder(subject)
    if not recipe.is_file():
        return None
    command = ["mergekit-yaml", str(recipe), str(out), "--lora-merge-cache", "merged-copies"]
    command += ["--trust-remote-code"] * subject.options.trust_remote_code
    command += ["--allow-crimes"] * subject.options.allow_crimes
    return shlex.join(command)


def change_merged_config(subject: Subject, statement: str) -> str:
    """Return a command that changes the merged model's config.json.

    Args:
        subject: the recipe.
        statement: Python that changes the mapping ``c``.
    """
    path = str(out_folder(subject) / "config.json")
    program = f"import json; p = {path!r}; c = json.load(open(p, encoding='utf-8')); {statement}; "
    return shlex.join(["python", "-c", program + "json.dump(c, open(p, 'w'), indent=2)"])


def out_folder(subject: Subject) -> Path:
    """Return the folder of the merged model; ``merged`` if none was given."""
    return Path("merged") if subject.out == Path(".") else subject.out
