"""The suite's ten tasks, by name. The demo has adapters for the first three."""

from __future__ import annotations

from benchmarks.quality.tasks import english, names, numbers

_TASKS = {task.name: task for task in (*numbers.TASKS, *english.TASKS, *names.TASKS)}
_ORDER = [
    *("numbers", "plurals", "sentiment", "cities", "clock", "languages", "letters"),
    *("parts_of_speech", "past_tense", "sums"),
]

TASKS = {name: _TASKS[name] for name in _ORDER}
"""In the order of the recorded results: which subsets are drawn depends on it."""
