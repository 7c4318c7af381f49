"""Values of settings, their differences and errors, and which setting is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergekit_spectral.tuning.choice import Kind, Objective, Part, Values


def objective(*sizes: int, kind: Kind = "mean", texts: bool = False) -> Objective:
    of_mean = np.exp if texts else np.asarray
    return Objective([Part(size, of_mean) for size in sizes], kind)


def drawn(size: int, mean: float, seed: int = 0) -> Values:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.2, size), 0, 1)


def test_values_of_sets_of_different_sizes_count_the_same():
    scores = [np.array([0.0, 1.0]), np.full(30, 0.9)]
    assert objective(2, 30).value(scores) == pytest.approx(0.7)
    assert objective(2, 30, kind="worst").value(scores) == pytest.approx(0.5)


def test_value_of_text_is_one_over_its_perplexity():
    scores = [np.log([0.1, 0.4])]
    assert objective(2, texts=True).value(scores) == pytest.approx(0.2)


def test_values_relative_to_references():
    scores = [np.array([0.4, 0.4]), np.log([0.1, 0.1])]
    own = Objective([Part(2, reference=0.8), Part(2, np.exp, 0.2)], "mean")
    assert own.value(scores) == pytest.approx(0.5)


def test_weights_of_sets():
    parts, scores = [Part(2, weight=3.0), Part(3)], [np.full(2, 0.4), np.full(3, 0.8)]
    assert Objective(parts, "mean").value(scores) == pytest.approx(0.5)
    assert Objective(parts, "mean").of_first(1).value(scores) == pytest.approx(0.5)
    assert Objective(parts, "worst").value(scores) == pytest.approx(0.4)


def test_standard_error_of_a_mean():
    scores = [drawn(400, 0.5)]
    expected = scores[0].std() / 20
    assert objective(400).error(scores) == pytest.approx(expected, rel=0.1)


def test_differences_are_of_the_same_examples():
    """The error of a constant shift is zero, however far the examples are apart."""
    scores = drawn(50, 0.5)
    shifted = objective(50).difference([scores + 0.01], [scores])
    assert shifted.mean == pytest.approx(0.01)
    assert shifted.error < 1e-12
    assert shifted.is_above(2)


def test_noise_is_no_gain():
    gains = [
        objective(40).difference([drawn(40, 0.5, 2 * i)], [drawn(40, 0.5, 2 * i + 1)]).is_above(2)
        for i in range(100)
    ]
    assert sum(gains) <= 8  # 2.5 are expected


@given(size=st.integers(2, 60), seed=st.integers(0, 99))
def test_resampling_is_the_same_every_time(size: int, seed: int):
    one, other = [drawn(size, 0.5, seed)], [drawn(size, 0.6, seed + 1)]
    first, again = (Objective([Part(size)], "mean", seed).difference(one, other) for _ in range(2))
    assert first == again


def test_first_examples_of_each_set():
    part = objective(10, 3).of_first(5)
    assert part.value([np.ones(5), np.zeros(3)]) == pytest.approx(0.5)
