"""One merge: its recipe, `mergekit-yaml` on it, and the record of what came out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.quality.checkpoints import Checkpoints
from benchmarks.quality.merging.variants import method_named
from benchmarks.quality.training.settings import Kind
from mergekit_spectral.demo.recipes import run_recipe
from mergekit_spectral.host.recipe_check import find_method
from mergekit_spectral.host.registration import is_spectral


@dataclass(frozen=True)
class Merge:
    """A merge of several tasks' fine-tunes.

    Attributes:
        kind: of the fine-tunes.
        method: by the name that `method_named` knows.
        tasks: whose fine-tunes, in this order.
        seed: of what is random in the method.
    """

    kind: Kind
    method: str
    tasks: tuple[str, ...]
    seed: int = 0

    @property
    def name(self) -> str:
        """Name that differs from those of other merges of the same kind and method."""
        return f"{'-'.join(self.tasks)}-{self.seed}"

    @property
    def needs_copies(self) -> bool:
        """Whether mergekit first merges each adapter into a copy of the base."""
        method = find_method(method_named(self.method).merge_method)
        return self.kind == "lora" and not is_spectral(method)

    def recipe(self, checkpoints: Checkpoints) -> dict[str, Any]:
        """Return the recipe, with λ = 1."""
        method = method_named(self.method)
        models = [checkpoints.path(self.kind, task) for task in self.tasks]
        on_base = f"{checkpoints.base}+" if self.kind == "lora" else ""
        return {
            "merge_method": method.merge_method,
            "base_model": str(checkpoints.base),
            "models": [
                {"model": f"{on_base}{model}", "parameters": {"weight": 1.0}} for model in models
            ],
            "parameters": {**method.parameters, "lambda": 1.0},
            "dtype": "float32",
        }


@contextmanager
def merged(
    merge: Merge, checkpoints: Checkpoints, device: str = "cpu"
) -> Iterator[tuple[Path, float]]:
    """Merge with `mergekit-yaml` on a device, and give the merged model's folder and the seconds.

    The folder is gone afterwards: a merge takes as much as the base.

    Raises:
        MergeError: mergekit failed.
    """
    parent = checkpoints.merging(merge.kind)
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent) as folder:
        work = Path(folder)
        recipe = work / f"{merge.method}.yml"
        recipe.write_text(yaml.safe_dump(merge.recipe(checkpoints), sort_keys=False))
        seconds = run_recipe(
            recipe,
            work / "out",
            work,
            copies=checkpoints.copies(merge.kind),
            options=("--random-seed", str(merge.seed), "--device", device),
        )
        yield work / "out", seconds
