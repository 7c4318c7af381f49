"""The estimates for large models, and what the documentation says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory
from mergekit_spectral.checking.timing import Speeds

DOCUMENT = Path(__file__).parents[2] / "docs" / "memory.md"


def test_the_document_has_these_estimates(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "measure_speeds", lambda *_, **__: Speeds(1e11, 1e9, 1e8))
    rows = memory.rows("7B", ["drm", "ties"], [4], rank=16)
    found = {(row[1], row[2]): (row[4], row[6]) for row in rows}
    lines = DOCUMENT.read_text().splitlines()
    for kind in ("lora", "full"):
        (line,) = [line for line in lines if line.startswith(f"| 7B | {kind} | 4 ")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert (cells[3], cells[4]) == found[kind, "drm"]
        assert (cells[6], cells[7]) == found[kind, "ties"]
