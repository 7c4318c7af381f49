"""Where the results stand in the repository."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "results"
MERGES = _FOLDER / "merges.json"
ANALYSES = _FOLDER / "analyses.json"
