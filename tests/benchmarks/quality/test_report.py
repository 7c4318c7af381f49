"""The command `report`, on made-up records."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.quality_records import MACHINE, VERSIONS, write_merge, write_training

from benchmarks.quality.__main__ import main
from benchmarks.quality.merging.methods import METHODS
from benchmarks.quality.reporting.aggregation import (
    Difference,
    Summary,
    against,
    base_by_task,
    by_size,
    by_task,
)
from benchmarks.quality.reporting.outcomes import Outcomes, read_lines
from benchmarks.quality.tasks import TASKS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two adapters, three merges of two, and one of all by each of two methods."""
    write_training(tmp_path, "lora", "sums", base=0.1, accuracy=0.8)
    write_training(tmp_path, "lora", "sentiment", base=0.5, accuracy=1.0, choice=True)
    for second, tuned in (("plurals", 0.5), ("clock", 0.7), ("cities", 0.9)):
        shares = {"sums": tuned, second: tuned}
        write_merge(tmp_path, "lora", "drm", {"sums": 0.25, second: 0.75}, shares)
    for seed in (0, 1):
        shares = dict.fromkeys(TASKS, 0.4 + 0.2 * seed)
        write_merge(tmp_path, "lora", "della", shares, shares, scale=0.7, seed=seed)
    shares = dict.fromkeys(TASKS, 0.1)
    write_merge(tmp_path, "lora", "star", shares, shares)
    return tmp_path


def report(*options: object) -> str:
    result = CliRunner().invoke(main, ["report", *map(str, options)])
    assert result.exit_code == 0, result.output
    return result.output


def collected(cache: Path) -> Outcomes:
    report("--cache", cache, "--json", cache / "merges.json")
    return read_lines(cache / "merges.json", Outcomes)


def test_means_and_spreads(cache: Path):
    outcomes = collected(cache)
    published = by_size(outcomes.merges, "published")
    assert published["lora", "drm", 2] == Summary(0.5, 0.0, 3)
    tuned = by_size(outcomes.merges, "tuned")
    assert tuned.keys() == {("lora", "drm", 2), ("lora", "della", 10), ("lora", "star", 10)}
    assert tuned["lora", "drm", 2].mean == pytest.approx(0.7)
    assert tuned["lora", "drm", 2].spread == pytest.approx(0.2)
    assert tuned["lora", "della", 10].spread == pytest.approx(0.02**0.5)
    assert tuned["lora", "star", 10].spread is None
    assert by_task(outcomes.merges, "tuned")["lora", "della", "clock"].mean == pytest.approx(0.5)


def test_records_in_short(cache: Path):
    outcomes = collected(cache)
    assert outcomes.measured_on == ({"machine": MACHINE, "versions": VERSIONS},)
    (first, second) = outcomes.fine_tunes
    assert (first.task, first.base, first.accuracy, first.loss) == ("sentiment", 0.5, 1.0, 0.0625)
    assert (second.task, second.base, second.seconds) == ("sums", 0.1, 100.0)
    assert base_by_task(outcomes) == {("lora", "sentiment"): 0.5, ("lora", "sums"): 0.125}
    della = outcomes.merges[0]
    assert (della.method, della.seed, della.tasks) == ("della", 0, tuple(TASKS))
    assert della.validation == {1.0: 0.5, 2.0: 0.75}
    assert della.seconds == 12.3


def test_tables_and_what_is_missing(cache: Path):
    output = report("--cache", cache, "--json", cache / "merges.json")
    rows = [" ".join(line.split()) for line in output.splitlines()]
    assert "| lora | sums | 10 | 80 | 0.062 | 100 |" in rows
    # No merge of three tasks is of the planned subsets, so there is no number to compare with.
    assert "| drm | 50.0 ± 0.0 | – |" in rows
    assert "| drm | 70.0 ± 20.0 | – |" in rows
    assert "| della | – | 50.0 ± 14.1 (n = 2) |" in rows
    assert f"| star | {'10 | ' * 10}10.0 |" in rows
    assert "| della | 1 | – | 0.7, 0.7 |" in rows
    assert "measured on: 2 cores, a CPU, 2 threads, python 3.11.0, torch 2.13.0" in rows
    missing = ", ".join(task for task in TASKS if task not in ("sentiment", "sums"))
    assert f"missing: 8 of 10 lora fine-tunes ({missing})" in rows
    assert any(row.startswith("missing: 83 of 83 full merges (task_arithmetic 7") for row in rows)
    (of_lora,) = (row for row in rows if "lora merges" in row)
    assert "della 7" in of_lora
    assert "star 6" in of_lora


def test_methods_are_compared_on_the_same_tasks(cache: Path):
    pairs = {"clock": (0.5, 0.6), "cities": (0.9, 0.8)}
    for second, (drm, ties) in pairs.items():
        for method, share in (("drm", drm), ("ties", ties), ("dare_ties", ties)):
            shares = {"sums": share, second: share}
            write_merge(cache, "lora", method, shares, shares)
    shares = {"sums": 1.0, "cities": 1.0}
    write_merge(cache, "lora", "dare_ties", shares, shares, seed=1)  # mean over seeds: 0.9
    outcomes = collected(cache)
    differences = against(outcomes.merges, "published", "ties")
    drm, dare = differences["lora", "drm", 2], differences["lora", "dare_ties", 2]
    assert drm[0] == pytest.approx({"sums": 0.1, "cities": 0.1})  # in the records' order
    assert drm[1] == pytest.approx({"sums": -0.1, "clock": -0.1})
    assert dare[0] == pytest.approx({"sums": 0.1, "cities": 0.1})
    assert not any(method == "della" for _, method, _ in differences)  # ties has not its tasks
    rows = [
        " ".join(line.split())
        for line in report("--cache", cache, "--json", cache / "m.json").splitlines()
    ]
    assert "| dare_ties | +5.0 (1/2) | +5.0 (1/2) |" in rows


def test_confidence_intervals_count_each_task_once():
    once = [{"a": 0.3, "b": 0.1, "c": 0.3, "d": 0.1}]
    by_t_test = 3.182446 * (0.04 / 3) ** 0.5 / 4**0.5
    assert Difference.of(once) == Difference(pytest.approx(0.2), pytest.approx(by_t_test), 1, 1)
    assert Difference.of(once * 5) == Difference(pytest.approx(0.2), pytest.approx(by_t_test), 5, 5)
    apart = [{task: value} for task, value in once[0].items()]
    assert Difference.of(apart).error == pytest.approx(by_t_test)
    assert Difference.of(apart[:3]) == Difference(pytest.approx(0.7 / 3), None, 3, 3)


def test_a_file_gives_the_same_report_as_the_cache(cache: Path):
    path = cache / "merges.json"
    from_cache = report("--cache", cache, "--json", path)
    written = path.read_bytes()
    assert report("--from", path) == from_cache
    report("--cache", cache, "--json", path)
    assert path.read_bytes() == written


def test_nothing_is_missing_after_a_whole_run(tmp_path: Path):
    from benchmarks.quality.merging.plan import SIZES, SUBSETS, plan

    for kind in ("lora", "full"):
        for task in TASKS:
            write_training(tmp_path, kind, task, 0.1, 0.9)
    for merge in plan(["lora", "full"], list(METHODS), list(TASKS), SIZES, SUBSETS):
        shares = dict.fromkeys(merge.tasks, 0.5)
        write_merge(tmp_path, merge.kind, merge.method, shares, shares, seed=merge.seed)
    output = report("--cache", tmp_path, "--json", tmp_path / "merges.json")
    assert "missing" not in output
    assert "n = " not in output
    assert "–" not in output


def test_plots(cache: Path, tmp_path: Path):
    output = report("--cache", cache, "--json", cache / "m.json", "--plot", tmp_path / "plots")
    files = sorted((tmp_path / "plots").iterdir())
    names = ["all-tasks-published.png", "all-tasks-tuned.png", "number-of-tasks.png"]
    assert [file.name for file in files] == names
    for file in files:
        assert file.read_bytes().startswith(PNG)
        assert file.stat().st_size > 20_000
        assert f"drawn: {file}" in output


def test_fine_tunes_alone(tmp_path: Path):
    write_training(tmp_path, "full", "sums", base=0.0, accuracy=0.0)
    plots = tmp_path / "plots"
    output = report("--cache", tmp_path, "--json", tmp_path / "merges.json", "--plot", plots)
    assert "Merges" not in output
    assert not plots.exists()


def test_errors_are_reported(tmp_path: Path):
    def error_of(*options: object) -> str:
        result = CliRunner().invoke(main, ["report", *map(str, options)])
        assert result.exit_code != 0
        return result.output

    json_path = tmp_path / "merges.json"
    assert f"no results in {tmp_path}" in error_of("--cache", tmp_path, "--json", json_path)
    assert not json_path.exists()
    json_path.write_text("{}")
    assert f"{json_path} is not a file of results" in error_of("--from", json_path)
    assert "does not exist" in error_of("--from", tmp_path / "none.json")
