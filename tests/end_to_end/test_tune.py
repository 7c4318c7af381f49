"""`mergekit-spectral tune` on tiny models: what it chooses, its files, and that it continues."""

from __future__ import annotations

import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import checkpoints
from support.checkpoints import Family
from support.interrupted import killed_at
from support.recipe_builders import recipe
from support.tuning import HEAD, adapters, report, run, settings, tuned, write, write_family
from transformers import AutoModelForCausalLM

import mergekit_spectral
from mergekit_spectral.reporting import extra
from mergekit_spectral.tuning import scorer, sets


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return write_family(tmp_path_factory.mktemp("tune"))


@pytest.fixture
def data(family: Family) -> list[str]:
    folder = family.base.parent
    return [f"--data={folder}/task-{number}.jsonl={number}" for number in (1, 2)]


def test_a_wrong_lambda_is_corrected(family: Family, data: list[str], tmp_path: Path):
    own = adapters("task_arithmetic", family, weight=1.0, **{"lambda": 3.0})
    path, out = write({**own, "merge_method": "knots_task_arithmetic"}, tmp_path), tmp_path / "out"
    output = tuned(path, *data, "--out", out)
    text = (out / "tuned.yml").read_text()
    values = yaml.safe_load(text)
    assert values["parameters"]["lambda"] < 2
    assert text.startswith("# Tuned by mergekit-spectral on task-1 (12) and task-2 (12): ")
    assert HEAD in text
    changed = {**own["parameters"], "lambda": values["parameters"]["lambda"]}
    assert values == {**own, "merge_method": "knots_task_arithmetic", "parameters": changed}
    found = report(out)
    assert found["changes"] == {"parameters.lambda": values["parameters"]["lambda"]}
    assert found["gain_of_best"]["mean"] > found["gain_of_best"]["error"]
    assert found["examples"] == [[6, 6], [6, 6]]
    by_name = {one["name"]: one for one in found["results"]}
    assert next(iter(by_name)) == "base"
    assert len(by_name) == 5  # and two inputs, the recipe, the chosen setting
    assert by_name[found["chosen"]]["value"] > by_name[found["recipe_setting"]]["value"]
    assert f"Take {found['chosen']}" in output
    files = {path.name for path in out.iterdir()}
    assert files == {"index.html", "report.json", "scores.jsonl", "tuned.yml"}
    page = (out / "index.html").read_text()
    assert f"<h1>Take {found['chosen']}.</h1>" in page
    assert text in unescape(page)
    assert f"{out / 'index.html'} shows all of it." in output
    names = [one["name"] for one in found["compared_to"]]
    assert names == list(by_name)[:4]
    best = next(one for one in found["searched"] if one["name"] == found["best"])
    gain = best["value"] - found["compared_to"][-1]["value"]
    assert found["gain_of_best"]["mean"] == pytest.approx(gain)
    assert best["candidate"]["method"] == "knots_task_arithmetic"


def test_without_the_extra(
    family: Family, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Then there is no page, and none of an earlier tuning either."""
    path, out = write(adapters("drm", family), tmp_path), tmp_path / "out"
    tuned(path, *data, "--out", out, "--lambda=1:1")
    assert (out / "index.html").exists()
    monkeypatch.setattr(extra, "find_spec", lambda _: None)
    output = tuned(path, *data, "--out", out, "--lambda=1:1")
    assert 'A page with plots needs the extra `report`: run `pip install ".[report]"`' in output
    files = {path.name for path in out.iterdir()}
    assert files == {"report.json", "scores.jsonl", "tuned.yml"}


def test_scores_are_shares_of_the_inputs_own(family: Family, data: list[str], tmp_path: Path):
    out = tmp_path / "out"
    tuned(write(adapters("drm", family), tmp_path), *data, "--out", out, "--lambda=1:1")
    found = report(out)
    assert found["inputs"] == [f"{family.base}+{path}" for path in family.tuned]
    by_name = {one["name"]: one for one in found["results"]}
    merged = by_name[found["recipe_setting"]]
    shares = [
        merged["sets"][number]["value"] / by_name[name]["sets"][number]["value"]
        for number, name in enumerate(found["inputs"])
    ]
    assert merged["value"] == pytest.approx(sum(shares) / 2)
    assert merged["value"] != pytest.approx(sum(s["value"] for s in merged["sets"]) / 2)


def test_normalized_scores_are_shares_of_the_best_inputs(
    family: Family, data: list[str], tmp_path: Path
):
    out, files = tmp_path / "out", [each.rpartition("=")[0] for each in data]
    path = write(adapters("drm", family), tmp_path)
    tuned(path, *files, "--out", out, "--lambda=1:1", "--objective=normalized")
    found = report(out)
    assert found["inputs"] == [None, None]
    base, *inputs, merged = found["results"]
    shares = [
        merged["sets"][number]["value"] / max(one["sets"][number]["value"] for one in inputs)
        for number in range(2)
    ]
    assert merged["value"] == pytest.approx(sum(shares) / 2)
    assert merged["mean"] == {"value": merged["value"], "error": merged["error"]}
    assert merged["worst"]["value"] == pytest.approx(min(shares))
    assert base["value"] < 1


def test_the_function_does_what_the_command_does(family: Family, data: list[str], tmp_path: Path):
    path = write(adapters("drm", family), tmp_path)
    tuned(path, *data, "--out", tmp_path / "command", "--lambda=0.5:2", "--limit=10")
    said: list[str] = []
    folder = family.base.parent
    found = mergekit_spectral.tune(
        path,
        {folder / f"task-{number}.jsonl": number for number in (1, 2)},
        out=tmp_path / "function",
        lambda_=(0.5, 2),
        limit=10,
        say=said.append,
    )
    command, function = (report(tmp_path / name) for name in ("command", "function"))
    assert {**command, "seconds": None} == {**function, "seconds": None}
    assert found.chosen == function["chosen"]
    assert "scoring base" in said


@pytest.mark.parametrize(
    "values",
    [
        {"lambda_": (2, 1)},
        {"objective": "best"},
        {"density": [2.0]},
        {"density": [2]},
        {"rank": [1.5]},
        {"rank": [0]},
        {"limit": 1},
    ],
)
def test_values_that_cannot_be_searched(values: dict[str, Any], family: Family, tmp_path: Path):
    path = write(adapters("drm", family), tmp_path)
    with pytest.raises(ValueError, match="give"):
        mergekit_spectral.tune(path, text=[path], out=tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_ranks_are_compared(family: Family, data: list[str], tmp_path: Path):
    out = tmp_path / "out"
    path = write(adapters("drm", family), tmp_path)
    tuned(path, *data, "--out", out, "--rank=0.1,2", "--lambda=1:1")
    assert settings(out) == {f"drm{rank} at λ = 1" for rank in ("", ", rank 0.1", ", rank 2")}
    values = {one["candidate"]["rank"]: one["value"] for one in report(out)["searched"]}
    assert len(set(values.values())) == 3


def test_methods_and_densities_are_compared(family: Family, data: list[str], tmp_path: Path):
    out = tmp_path / "out"
    path = write(adapters("drm", family, density=0.5), tmp_path)
    tuned(path, *data, "--out", out, "--methods=drm,ties,star", "--density=0.3,1", "--lambda=1:1")
    assert settings(out) == {
        f"{candidate} at λ = 1"
        for candidate in (
            "drm",
            *(
                f"{method}, density {density}"
                for method in ("drm", "ties")
                for density in (0.3, 1.0)
            ),
            "star",
        )
    }


def test_weights(family: Family, data: list[str], tmp_path: Path):
    """Only the first task counts, so its input gets a larger share."""
    own = adapters("knots_task_arithmetic", family, weight=0.5)
    out = tmp_path / "out"
    tuned(write(own, tmp_path), data[0], "--out", out, "--weights", "--lambda=1:1")
    weights = [
        model["parameters"]["weight"]
        for model in yaml.safe_load((out / "tuned.yml").read_text())["models"]
    ]
    assert weights[0] > weights[1]


def test_full_models_and_text(tmp_path: Path):
    base = checkpoints.llama()
    family = checkpoints.write_family(tmp_path, base, 2)
    checkpoints.write_tokenizer(family.base)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "one.txt").write_text("abcdefghij" * 30)
    out = tmp_path / "out"
    path = write(recipe("ties", family, weight=1.0), tmp_path)
    output = tuned(path, "--text", tmp_path / "text", "--out", out, "--lambda=0.5:2")
    found = report(out)
    assert found["sets"] == ["text"]
    assert found["results"][0]["value"] == pytest.approx(1)  # text is compared to the base
    assert "--lora-merge-cache" not in output
    assert len(settings(out)) >= 3


def test_a_recipe_that_cannot_be_improved_is_kept(family: Family, data: list[str], tmp_path: Path):
    out = tmp_path / "out"
    path = write(adapters("drm", family), tmp_path)
    output = tuned(path, *data, "--out", out, "--lambda=1:1")
    assert "Keep the recipe as it is" in output
    assert report(out)["changes"] == {}
    text = (out / "tuned.yml").read_text()
    assert yaml.safe_load(text) == yaml.safe_load(path.read_text())


def test_a_tuning_that_was_stopped_continues(
    family: Family, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(adapters("drm", family), tmp_path)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    arguments = [path, *data, "--density=0.3,1"]
    tuned(*arguments, "--out", undisturbed)
    assert killed_at(100, out, lambda: tuned(*arguments, "--out", out))
    before = len((out / "scores.jsonl").read_text().splitlines())
    assert before > 3
    scored = []
    score = sets.score
    monkeypatch.setattr(sets, "score", lambda *a: scored.append(1) or score(*a))
    tuned(*arguments, "--out", out)
    times = ("seconds",)
    same = [
        {k: v for k, v in report(each).items() if k not in times} for each in (undisturbed, out)
    ]
    assert same[0] == same[1]
    assert (out / "tuned.yml").read_bytes() == (undisturbed / "tuned.yml").read_bytes()
    assert len(scored) < len((undisturbed / "scores.jsonl").read_text().splitlines())


def test_a_tuning_that_was_stopped_in_a_copy_of_an_adapter_continues(
    family: Family, data: list[str], tmp_path: Path
):
    path, out = write(adapters("ties", family, weight=1.0), tmp_path), tmp_path / "out"
    arguments = [path, *data, "--out", out, "--lambda=1:1"]

    def unfinished_copies() -> list[Path]:
        copies = out.glob(".tuning-*/copies/*")
        return [copy for copy in copies if not (copy / "model.safetensors").exists()]

    event = 0
    while not unfinished_copies():
        assert killed_at(event, out / ".tuning-", lambda: tuned(*arguments))
        event += 1
    tuned(*arguments)
    assert not list(out.glob(".tuning-*"))


def test_files_that_are_not_of_a_tuning_stay(family: Family, data: list[str], tmp_path: Path):
    path, out = write(adapters("drm", family), tmp_path), tmp_path / "out"
    (out / "work-notes").mkdir(parents=True)
    (out / ".tuning-notes").mkdir()
    for name in ("report.json", "index.html"):
        (out / name).write_text("mine")
        result = run(path, *data, "--out", out, "--lambda=1:1")
        assert result.exit_code == 1
        assert f"{name}, which is not from an earlier tuning" in " ".join(result.output.split())
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    tuned(path, *data, "--out", out, "--lambda=1:1")
    tuned(path, *data, "--out", out, "--lambda=1:1")
    assert (out / "work-notes").is_dir()
    assert (out / ".tuning-notes").is_dir()


def test_the_budget_is_for_the_search(
    family: Family, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is scored before it takes longer here than the budget."""
    out, score, start = tmp_path / "out", sets.score, scorer.Scorer.start_budget
    searching = []

    def slow(*arguments: Any) -> Any:
        if not searching:
            time.sleep(0.5)
        return score(*arguments)

    def starting(own: scorer.Scorer) -> None:
        searching.append(own)
        start(own)

    monkeypatch.setattr(sets, "score", slow)
    monkeypatch.setattr(scorer.Scorer, "start_budget", starting)
    tuned(write(adapters("drm", family), tmp_path), *data, "--out", out, "--budget=3s")
    assert len(settings(out)) > 1


@pytest.mark.parametrize("method", ["dare_ties", "knots_dare_ties"])
def test_the_same_seed_gives_the_same(method: str, family: Family, data: list[str], tmp_path: Path):
    path = write(adapters(method, family, weight=1.0), tmp_path)
    chosen = []
    for name in ("one", "two"):
        out = tmp_path / name
        tuned(path, *data, "--out", out, "--seed=7", "--density=0.5", "--lambda=0.7:1.5")
        chosen.append({**report(out), "seconds": 0})
    assert chosen[0] == chosen[1]


def test_merge_with_the_tuned_values(family: Family, data: list[str], tmp_path: Path):
    own = adapters("knots_task_arithmetic", family, weight=1.0, **{"lambda": 3.0})
    out, merged = tmp_path / "out", tmp_path / "merged"
    output = tuned(write(own, tmp_path), *data, "--out", out, "--merge", merged, "--quiet")
    assert output == ""
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    card = (merged / "README.md").read_text()
    assert "### Tuning\n\nTuned by mergekit-spectral on task-1 (12)" in card
    assert str(tmp_path) not in card


def test_no_time(family: Family, data: list[str], tmp_path: Path):
    """Then the recipe itself is all that was scored."""
    out = tmp_path / "out"
    path = write(adapters("drm", family), tmp_path)
    output = tuned(path, *data, "--out", out, "--budget=0.001s", "--methods=star,drm")
    assert "Keep the recipe as it is" in output
    assert settings(out) == {"drm at λ = 1"}


def test_weights_of_many_inputs(family: Family, data: list[str], tmp_path: Path):
    own = adapters("drm", family)
    folder = family.base.parent
    for seed in range(3, 7):
        path = folder / f"adapter-{seed}"
        checkpoints.write_adapter(path, checkpoints.llama(), seed, ["q_proj"])
        own["models"].append({"model": f"{family.base}+{path}"})
    result = run(write(own, tmp_path), *data, "--weights", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "has 6 inputs" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give examples with --data, text with --text, or --tasks"),
        (["--data=nowhere.jsonl"], "nowhere.jsonl not found"),
        (["--data=empty.jsonl"], "empty.jsonl is empty"),
        (["--data=task-1.jsonl=3"], "the recipe has no input 3"),
        (["--data=task-1.jsonl", "--lambda=3:1"], "'3:1' is not a range of positive numbers"),
        (["--data=task-1.jsonl", "--budget=3"], "'3' is not a time such as 90s, 30m or 2h"),
        (["--data=task-1.jsonl", "--methods=drn"], "did you mean drm?"),
        (["--data=task-1.jsonl", "--methods=nearswap"], "nearswap needs a value of `t`"),
        (["--data=task-1.jsonl", "--device=nowhere"], "`--device` nowhere cannot be used"),
        (["--data=one.jsonl"], "one.jsonl has one example, and two are needed"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str],
    message: str,
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task-1.jsonl").write_bytes((family.base.parent / "task-1.jsonl").read_bytes())
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "one.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    result = run(write(adapters("drm", family), tmp_path), *arguments)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "tuned" / "tuned.yml").exists()


def test_a_base_without_a_tokenizer(family: Family, tmp_path: Path):
    checkpoints.llama().save_pretrained(tmp_path / "base")
    own = recipe("drm", Family(tmp_path / "base", (family.base,)))
    result = run(write(own, tmp_path), f"--data={family.base.parent}/task-1.jsonl")
    assert result.exit_code == 1
    assert "has no tokenizer that transformers can load" in " ".join(result.output.split())


def test_a_model_that_does_not_fit(
    family: Family, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    result = run(write(adapters("drm", family), tmp_path), *data, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "does not fit into the memory of cpu; use `--dtype bfloat16`" in " ".join(
        result.output.split()
    )
