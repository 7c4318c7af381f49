"""The search over scales and candidates, on functions whose best scale is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_spectral.tuning.candidates import Candidate
from mergekit_spectral.tuning.search import CLOSE, FEWEST, OutOfTimeError, halve, search_scale

LOW, HIGH = 0.1, 3.0
scales = st.floats(LOW, HIGH)


def peak_at(scale: float) -> Callable[[float], float]:
    return lambda x: -(abs(math.log(x / scale)) ** 1.5)


@given(best=scales, start=scales)
def test_best_scale_is_found_in_few_evaluations(best: float, start: float):
    values = search_scale(peak_at(best), start, LOW, HIGH)
    found = max(values, key=values.__getitem__)
    assert max(found / best, best / found) <= CLOSE
    assert len(values) <= 16
    assert all(LOW <= scale <= HIGH for scale in values)


@pytest.mark.parametrize(("sign", "best"), [(1, HIGH), (-1, LOW)])
def test_a_value_that_only_rises_ends_at_the_limit(sign: int, best: float):
    values = search_scale(lambda scale: sign * scale, 1.0, LOW, HIGH)
    assert max(values, key=values.__getitem__) == best


def test_equal_values_end_the_search():
    assert len(search_scale(lambda _: 0.0, 1.0, LOW, HIGH)) <= 12


def test_a_coarse_search_only_looks_at_neighbours():
    values = search_scale(peak_at(1.0), 1.0, LOW, HIGH, close=1.5**2)
    assert sorted(values) == pytest.approx([0.667, 1.0, 1.5])


@pytest.mark.parametrize("evaluations", [0, 1, 3])
def test_values_before_the_time_was_up_are_kept(evaluations: int):
    calls = count()

    def value(scale: float) -> float:
        if next(calls) == evaluations:
            raise OutOfTimeError
        return -scale

    assert len(search_scale(value, 1.0, LOW, HIGH)) == evaluations


@given(number=st.integers(1, 30), examples=st.integers(1, 400))
def test_halving_keeps_the_best_and_ends_on_all_examples(number: int, examples: int):
    candidates = [Candidate(f"method{i}") for i in range(number)]
    calls: list[tuple[Candidate, int]] = []

    def compare(candidate: Candidate, examples: int) -> float:
        calls.append((candidate, examples))
        return -candidates.index(candidate)

    halve(candidates, examples, compare)
    assert calls[-1] == (candidates[0], examples)
    assert {candidate for candidate, _ in calls} == set(candidates)
    assert all(min(FEWEST, examples) <= used <= examples for _, used in calls)
    # All rungs together cost about as much as a few candidates on all examples.
    assert sum(used for _, used in calls) <= 6 * examples + 2 * number * FEWEST
