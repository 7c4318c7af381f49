"""Tasks by name, and in files of mergekit-evolve."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mergekit.evo.config import EvolMergeConfiguration

from mergekit_spectral.errors import MergeError
from mergekit_spectral.tuning.task_names import NamedTask, named_tasks

GENOME = """
genome:
  models: [a, b]
  merge_method: ties
  base_model: base
tasks:
  - arc_easy
  - {name: gsm8k, weight: 2, metric: "exact_match,strict-match"}
  - {name: my_task, weight: 0.5}
"""


def read(*names: str) -> list[NamedTask]:
    return list(named_tasks((name, None) for name in names))


def test_names():
    assert list(named_tasks([("arc_easy", None), ("gsm8k", "math")])) == [
        NamedTask("arc_easy"),
        NamedTask("gsm8k", "math"),
    ]


def test_a_file_of_mergekit_evolve_means_what_it_means_there(tmp_path: Path):
    path = tmp_path / "genome.yml"
    path.write_text(GENOME)
    theirs = EvolMergeConfiguration.model_validate(yaml.safe_load(GENOME)).tasks
    assert read(str(path)) == [
        NamedTask(task.name, None, task.metric, task.weight) for task in theirs
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: mine", "has no `tasks:`, as a file of mergekit-evolve has"),
        ("tasks: []", "`tasks` is []"),
        ("tasks: [3]", "`tasks.0` is 3"),
        ("tasks: [{weight: 1}]", "`tasks.0.name` is {'weight': 1}"),
        ("tasks: [{name: a, weight: 0}]", "`tasks.0.weight` is 0"),
        ("tasks: [{name: a, weight: -1}]", "with a weight above 0"),
        ("tasks: [{name: a, weight: .nan}]", "`tasks.0.weight` is nan"),
        ("tasks: [a", "cannot be read"),
    ],
)
def test_files_that_are_refused(text: str, message: str, tmp_path: Path):
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(MergeError) as caught:
        read(str(path))
    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_a_file_that_is_missing(tmp_path: Path):
    with pytest.raises(MergeError, match=r"nowhere\.yml not found"):
        read(str(tmp_path / "nowhere.yml"))
