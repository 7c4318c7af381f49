"""Speeds are those of an idle machine, whatever else it does."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from mergekit.merge_methods import get

from mergekit_spectral.checking import timing
from mergekit_spectral.checking.timing import Taken, _time, measure_speeds


def burn(seconds: float) -> None:
    start = time.thread_time()
    while time.thread_time() - start < seconds:
        pass


def test_waiting_for_the_cpu_is_not_counted():
    """A program that other programs keep from running does not use the CPU, as in a sleep."""

    def interrupted() -> None:
        burn(0.01)
        time.sleep(0.1)

    taken = _time(interrupted)
    assert 0.01 <= taken.idle < 0.03
    assert taken.wall > 0.1
    assert taken.is_busy


def test_slow_work_is_timed_less_often():
    runs = []
    _time(lambda: runs.append(time.sleep(0.3)), times=9)
    assert len(runs) == 2
    runs.clear()
    _time(lambda: runs.append(None), times=3)
    assert len(runs) == 4


@pytest.fixture(autouse=True)
def measured_anew() -> Iterator[None]:
    """Measure in each test, and forget it afterwards."""
    timing._matrix_speeds.cache_clear()
    yield
    timing._matrix_speeds.cache_clear()


def test_a_busy_machine_is_measured_on_small_matrices(monkeypatch: pytest.MonkeyPatch):
    measured = []

    def times(side: int) -> tuple[Taken, Taken]:
        measured.append((side, torch.get_num_threads()))
        return Taken(1.0, 1.0), Taken(2.0, wall)

    monkeypatch.setattr(timing, "_matrix_times", times)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        wall = 2.1
        idle = measure_speeds(get("linear"), 2)
        assert measured == [(timing.SMALL_SIDE, 1), (timing.SIDE, 2)]
        assert (idle.products, idle.cubes) == (timing.SIDE**3, timing.SIDE**3 / 2)
        timing._matrix_speeds.cache_clear()
        measured.clear()
        wall = 50.0
        busy = measure_speeds(get("linear"), 2)
        assert measured == [(timing.SMALL_SIDE, 1)]
        # Two threads do products twice as fast, and decompositions 4/3 times.
        assert busy.products == 2 * timing.SMALL_SIDE**3
        assert busy.cubes == pytest.approx(timing.SMALL_SIDE**3 / 2 * 4 / 3)
        assert busy.entries > 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
