"""What a tuning searches, and how it scores models."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import get_args

import torch
from mergekit.options import MergeOptions

from mergekit_spectral.tuning.choice import Kind


@dataclass(frozen=True)
class Options:
    """What is searched, and how models are scored.

    Attributes:
        methods: names of merge methods; the recipe's own if empty.
        values: by parameter, the densities and ranks to compare; the recipe's own if there are
            none.
        scales: the smallest and the largest scale.
        weights: whether to search for weights of the inputs, too.
        objective: the mean of the data sets, the worst of them, or the mean normalized by the best
            input of each.
        budget: seconds for the search; None for as long as it takes.
        device: that models are scored on.
        dtype: in which they are scored.
        seed: of resampling, and of methods that draw at random.
        limit: examples of each data set that are used at most.
        merge: mergekit's options.

    Raises:
        ValueError: a number is out of its range, or there is no such objective.
    """

    methods: Sequence[str] = ()
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    scales: tuple[float, float] = (0.1, 3.0)
    weights: bool = False
    objective: Kind = "mean"
    budget: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    seed: int = 0
    limit: int | None = None
    merge: MergeOptions = field(default_factory=MergeOptions)

    def __post_init__(self) -> None:
        low, high = self.scales
        if not 0 < low <= high:
            raise ValueError(
                f"λ from {low} to {high}: give two positive numbers, the smaller first"
            )
        if self.objective not in get_args(Kind):
            raise ValueError(f"objective {self.objective!r}: give one of {get_args(Kind)}")
        for name, values in self.values.items():
            # A whole number is no share, but a number of directions.
            most = [inf if name == "rank" and isinstance(value, int) else 1 for value in values]
            if not all(0 < value <= limit for value, limit in zip(values, most, strict=True)):
                raise ValueError(f"{name} {values}: give numbers above 0 and at most 1")
        if self.limit is not None and self.limit < 2:
            raise ValueError(
                f"limit {self.limit}: a half chooses and a half reports, so give 2 or more"
            )

    def with_copies_in(self, folder: Path) -> Options:
        """Have mergekit merge adapters into copies in a folder, unless it is given another one.

        The folder is emptied: mergekit takes a copy for whole that it was stopped at writing.
        """
        if self.merge.lora_merge_cache:
            return self
        shutil.rmtree(folder, ignore_errors=True)
        merge = self.merge.model_copy(update={"lora_merge_cache": str(folder)})
        return replace(self, merge=merge)
