"""What a tuning searches, and how it scores models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from mergekit.options import MergeOptions

from mergekit_spectral.tuning.choice import Kind


@dataclass(frozen=True)
class Options:
    """What is searched, and how models are scored.

    Attributes:
        methods: names of merge methods; the recipe's own if empty.
        densities: that all inputs have; the recipe's own if empty.
        scales: the smallest and the largest scale.
        weights: whether to search for weights of the inputs, too.
        objective: the mean of the data sets, or the worst of them.
        budget: seconds for the search; None for as long as it takes.
        device: that models are scored on.
        dtype: in which they are scored.
        seed: of resampling, and of methods that draw at random.
        limit: examples of each data set that are used at most.
        merge: mergekit's options.
    """

    methods: Sequence[str] = ()
    densities: Sequence[float] = ()
    scales: tuple[float, float] = (0.1, 3.0)
    weights: bool = False
    objective: Kind = "mean"
    budget: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    seed: int = 0
    limit: int | None = None
    merge: MergeOptions = field(default_factory=MergeOptions)
