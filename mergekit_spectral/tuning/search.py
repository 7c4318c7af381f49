"""Which scales and candidates are scored, within a budget of time.

The value of a merge rises with its scale up to a best one and falls after it, on every model that
was measured. So few scales have to be scored: outwards from a start, until both neighbours of the
best are worse, and then between them.

Candidates are compared by successive halving: all of them on a few examples, the better third on
three times as many, and so on (Jamieson and Talwalkar, arXiv 1502.07943).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mergekit_spectral.tuning.candidates import Candidate

STEP = 1.5
"""Ratio of neighbouring scales on the first grid."""
CLOSE = 1.15
"""The search ends when the best scale is known to lie between two whose ratio is at most this."""
GOLDEN = (3 - math.sqrt(5)) / 2
KEPT = 3
"""One of how many candidates is scored on more examples."""
FEWEST = 8
"""Examples of each data set on which candidates are compared first, at least."""


class OutOfTimeError(Exception):
    """The budget does not suffice for another evaluation."""


ValueAt = Callable[[float], float]


def search_scale(
    value_at: ValueAt, start: float, low: float, high: float, close: float = CLOSE
) -> dict[float, float]:
    """Search for the scale of the largest value.

    Args:
        value_at: gives the value at a scale; may raise `OutOfTimeError`.
        start: where to begin.
        low: smallest scale.
        high: largest scale.
        close: ratio of scales between which the best one is searched no further.

    Returns:
        The values of the scales that were evaluated; of those before the time was up, if it was.
    """
    values: dict[float, float] = {}

    def evaluate(scale: float) -> float:
        scale = min(high, max(low, float(f"{scale:.3g}")))
        if scale not in values:
            values[scale] = value_at(scale)
        return scale

    try:
        best = evaluate(start)
        while True:
            neighbours = evaluate(best * STEP), evaluate(best / STEP)
            around = max((best, *neighbours), key=values.__getitem__)
            if around == best:
                break
            best = around
        while True:
            below = max((scale for scale in values if scale < best), default=best)
            above = min((scale for scale in values if scale > best), default=best)
            if above / below <= close:
                break
            left, right = math.log(best / below), math.log(above / best)
            step = GOLDEN * (right if right >= left else -left)
            # A third digit more may be none.
            if evaluate(best * math.exp(step)) in (below, best, above):
                break
            best = max(values, key=values.__getitem__)
    except OutOfTimeError:
        pass
    return values


def halve(
    candidates: Sequence[Candidate],
    examples: int,
    compare: Callable[[Candidate, int], float],
) -> None:
    """Compare candidates on ever more examples.

    Args:
        candidates: at least one.
        examples: number of examples of the largest data set.
        compare: gives a candidate's value on a number of examples of each data set. On all examples
            it is called for the candidates that are left at the end.
    """
    rungs = max(0, math.ceil(math.log(len(candidates), KEPT)))
    left = list(candidates)
    for rung in range(rungs, -1, -1):
        count = max(min(FEWEST, examples), math.ceil(examples / KEPT**rung))
        values = {candidate: compare(candidate, count) for candidate in left}
        left.sort(key=values.__getitem__, reverse=True)
        left = left[: math.ceil(len(left) / KEPT)]
