"""`mergekit-spectral tune --tasks` on tiny models, with tasks on local files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager
from support.checkpoints import Family
from support.interrupted import killed_at
from support.lm_eval_tasks import CHOICES, GENERATED, write_task
from support.tuning import adapters, report, run, tuned, write, write_family

import mergekit_spectral
from mergekit_spectral.tuning import lm_eval_tasks, reading
from mergekit_spectral.tuning.lm_eval_tasks import TaskSet


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    family = write_family(tmp_path_factory.mktemp("tune"))
    folder = family.base.parent
    write_task(folder / "tasks", "spelling", folder / "task-1.jsonl", **GENERATED)
    write_task(folder / "tasks", "choosing", folder / "task-2.jsonl", **CHOICES)
    return family


@pytest.fixture
def search(family: Family) -> str:
    return f"--task-search-path={family.base.parent / 'tasks'}"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what the command sets for libraries that are imported after it."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        monkeypatch.setitem(os.environ, name, os.environ.get(name, ""))


@pytest.fixture
def only_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave lm-eval's own tasks out, because it takes seconds to list them."""
    own = partial(TaskManager, include_defaults=False)
    monkeypatch.setattr(lm_eval_tasks, "TaskManager", own)


@pytest.mark.usefixtures("only_own_tasks")
def test_tasks_beside_data(family: Family, search: str, tmp_path: Path):
    own = adapters("knots_task_arithmetic", family, weight=1.0, **{"lambda": 30.0})
    path, out = write(own, tmp_path), tmp_path / "out"
    data = f"--data={family.base.parent}/task-1.jsonl"
    output = tuned(
        path, data, "--tasks=spelling,choosing=2", search, "--lambda=0.3:30", "--out", out
    )
    found = report(out)
    assert found["sets"] == ["task-1", "spelling", "choosing"]
    assert found["metrics"] == ["likelihood", "exact_match,whole", "acc_norm,none"]
    assert found["inputs"] == [None, None, f"{family.base}+{family.tuned[1]}"]
    assert found["examples"] == [[6, 6]] * 3
    assert yaml.safe_load((out / "tuned.yml").read_text())["parameters"]["lambda"] < 30
    _, first, _, recipe, _ = found["results"]
    assert first["sets"][1]["value"] > recipe["sets"][1]["value"]  # its own answers
    assert all(one["accuracy"] is None for one in recipe["sets"][1:])
    assert "spelling, exact_match,whole" in output
    assert "choosing, acc_norm" in output
    assert "mean score" in output
    assert "Do not compare other models to this one on spelling and choosing" in output
    assert "on task-1 (12), spelling (12) and choosing (12)" in (out / "tuned.yml").read_text()


@pytest.mark.usefixtures("only_own_tasks")
def test_a_file_of_mergekit_evolve(family: Family, search: str, tmp_path: Path):
    genome = tmp_path / "genome.yml"
    entries = [
        {"name": "spelling", "weight": 3, "metric": "exact_match,first"},
        {"name": "choosing"},
    ]
    genome.write_text(yaml.safe_dump({"genome": {"models": []}, "tasks": entries}))
    path, out = write(adapters("drm", family), tmp_path), tmp_path / "out"
    tuned(path, f"--tasks={genome}", search, "--out", out, "--lambda=1:1", "--limit=8")
    found = report(out)
    assert found["sets"] == ["spelling", "choosing"]
    assert found["metrics"] == ["exact_match,first", "acc,none"]
    assert found["weights"] == [3, 1]
    assert found["examples"] == [[4, 4]] * 2
    for one in found["results"]:
        spelling, choosing = (each["value"] for each in one["sets"])
        assert one["value"] == pytest.approx((3 * spelling + choosing) / 4)


@pytest.mark.usefixtures("only_own_tasks")
def test_a_tuning_that_was_stopped_continues(
    family: Family, search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, out = write(adapters("drm", family), tmp_path), tmp_path / "out"
    arguments = [path, "--tasks=spelling", search, "--out", out, "--lambda=0.7:1.5"]
    assert killed_at(30, out, lambda: tuned(*arguments))
    before = [line for line in (out / "scores.jsonl").read_text().splitlines() if line]
    assert before
    scored: list[int] = []
    score = TaskSet.score

    def counted(self: TaskSet, model: Any, items: Any) -> Any:
        scored.append(len(items))
        return score(self, model, items)

    monkeypatch.setattr(TaskSet, "score", counted)
    tuned(*arguments)
    after = [line for line in (out / "scores.jsonl").read_text().splitlines() if line]
    assert after[: len(before)] == before
    assert len(scored) == len(after) - len(before)


@pytest.mark.usefixtures("only_own_tasks")
def test_in_python(family: Family, tmp_path: Path):
    path = write(adapters("drm", family), tmp_path)
    tuning = mergekit_spectral.tune(
        path,
        tasks={"choosing": 2},
        task_search_path=[family.base.parent / "tasks"],
        out=tmp_path / "out",
        lambda_=(1, 1),
    )
    assert tuning.tasks == ["choosing"]
    assert tuning.inputs == (f"{family.base}+{family.tuned[1]}",)


def test_an_unknown_task(family: Family, search: str, tmp_path: Path):
    path = write(adapters("drm", family), tmp_path)
    result = run(path, "--tasks=arc_eazy", search, "--out", tmp_path / "out")
    assert result.exit_code == 1
    message = "Error: lm-eval has no task arc_eazy; did you mean arc_easy"
    assert message in " ".join(result.output.split())


@pytest.mark.usefixtures("only_own_tasks")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks=spelling=3"], "the recipe has no input 3"),
        (["--tasks=spelling", "--limit=1"], "1 is not in the range x>=2"),
        (["--tasks=tasks.yml"], "tasks.yml not found"),
        (["--tasks="], "lm-eval has no task"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str], message: str, family: Family, search: str, tmp_path: Path
):
    path = write(adapters("drm", family), tmp_path)
    result = run(path, *arguments, search, "--out", tmp_path / "out")
    assert isinstance(result.exception, SystemExit)
    assert message in " ".join(result.output.split())


def test_without_lm_eval(
    family: Family, search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "find_spec", lambda _: None)
    result = run(write(adapters("drm", family), tmp_path), "--tasks=spelling", search)
    assert result.exit_code == 1
    message = 'tune --tasks needs the extra `tune`: run `pip install ".[tune]"`'
    assert message in " ".join(result.output.split())
