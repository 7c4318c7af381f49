"""The estimates for large models are those that are recorded."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from benchmarks import memory
from benchmarks.recorded import read
from mergekit_spectral.checking.timing import Speeds


def test_the_recorded_estimates_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "measure_speeds", lambda *_, **__: Speeds(1e11, 1e9, 1e8))
    recorded = {
        (one["kind"], one["method"]): {**one, "core_seconds": 0}
        for one in read("memory")["estimates"]
        if (one["size"], one["count"]) == ("7B", 4)
    }
    methods = list(dict.fromkeys(method for _, method in recorded))
    found = {
        (one.kind, one.method): asdict(replace(one, core_seconds=0))
        for one in memory.estimates("7B", methods, [4])
    }
    assert found == recorded
