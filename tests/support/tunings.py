"""Tunings that a test makes, without models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mergekit_spectral.tuning.candidates import Candidate
from mergekit_spectral.tuning.choice import Difference
from mergekit_spectral.tuning.results import Estimate, Result, SetResult, Tuning
from mergekit_spectral.tuning.scorer import BASE, Setting, at
from mergekit_spectral.tuning.sets import LIKELIHOOD, PERPLEXITY

METHODS = ("drm", "ties", "star", "knots_ties", "tsvm", "iso_c", "task_arithmetic")
SCALES = (0.3, 0.45, 0.67, 1.0, 1.5)


def candidates(count: int) -> list[Candidate]:
    """Return different candidates; the first is the recipe itself."""
    densities = (None, 0.2, 0.5)
    return [
        Candidate(METHODS[number % len(METHODS)], densities[number // len(METHODS)])
        for number in range(count)
    ]


def tuning(
    sets: Sequence[str] = ("math", "chat"),
    compared: Sequence[Candidate] = (Candidate("drm"),),
    inputs: Sequence[str] = ("lab/base+lab/math-adapter", "lab/base+lab/chat-adapter"),
    texts: int = 0,
    gain: float = 0.1,
    scales_lambda: bool = False,
) -> Tuning:
    """Return a tuning of the recipe drm, λ = 1. Its last candidate, at λ = 0.67, is the best.

    Args:
        sets: names of data sets, of 40 examples each.
        compared: candidates, the recipe's own first.
        inputs: names of the inputs.
        texts: number of sets, at the end, that are texts.
        gain: by which the best is above the recipe.
        scales_lambda: whether scales are factors of the recipe's λ.
    """
    draw = np.random.default_rng(len(sets))
    offsets = draw.uniform(0.2, 0.5, len(sets))
    is_text = [len(sets) - number <= texts for number in range(len(sets))]

    def measured(setting: Setting, height: float, count: int | None, reported: bool) -> Result:
        values = [offset + height + draw.normal(0, 0.01) for offset in offsets]
        parts = tuple(
            SetResult(value / 10, 0.01, None)
            if text
            else SetResult(value, 0.04, value + 0.1 if reported else None)
            for value, text in zip(values, is_text, strict=True)
        )
        return Result(
            name=setting.name,
            candidate=setting.candidate,
            scale=setting.scale if setting.candidate else None,
            examples=count,
            value=(mean := float(np.mean([part.value for part in parts]))),
            error=0.03,
            mean=Estimate(mean, 0.03),
            worst=Estimate(min(part.value for part in parts), 0.05),
            sets=parts,
        )

    def height(scale: float, place: int) -> float:
        return gain * (1.5 - math.log(scale / 0.67) ** 2 - 0.2 * place)

    own = at(compared[0], 1.0)
    ranked = list(reversed(compared))
    best = at(ranked[0], 0.67)
    chosen = best if gain > 0 else own
    alone = [(BASE, -0.15), *((Setting(name), -0.05) for name in inputs)]
    references = [*alone, (own, 0.0)]
    return Tuning(
        recipe="recipe.yml",
        sets=tuple(sets),
        weights=(1.0,) * len(sets),
        metrics=tuple(PERPLEXITY if text else LIKELIHOOD for text in is_text),
        examples=((20, 20),) * len(sets),
        inputs=(inputs[0],) + (None,) * (len(sets) - 1),
        objective="mean",
        scales_lambda=scales_lambda,
        searched=tuple(
            measured(at(candidate, scale), height(scale, place), 20 if place < 3 else 8, False)
            for place, candidate in enumerate(ranked)
            for scale in SCALES[: 5 if place < 3 else 3]
        ),
        compared_to=tuple(measured(*each, None, False) for each in references),
        recipe_setting=own.name,
        best=best.name,
        limits=(0.1, 3.0),
        chosen=chosen.name,
        gain_of_best=Difference(gain * 1.2, 0.03),
        gain=Difference(max(gain, 0), 0.03),
        results=tuple(
            measured(*each, None, True) for each in dict([*references, (chosen, gain)]).items()
        ),
        changes={"parameters.lambda": 0.67} if chosen != own else {},
        cut=0,
        seconds=84.0,
    )
