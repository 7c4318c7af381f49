"""The suite's tasks, by name: the demo's three and seven more."""

from __future__ import annotations

from benchmarks.quality.tasks import (
    cities,
    clock,
    languages,
    letters,
    parts_of_speech,
    past_tense,
    sums,
)
from mergekit_spectral.demo.tasks import TASKS as DEMO_TASKS

_MODULES = (cities, clock, languages, letters, parts_of_speech, past_tense, sums)
TASKS = {task.name: task for task in (*DEMO_TASKS, *(module.TASK for module in _MODULES))}
