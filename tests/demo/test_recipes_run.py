"""The recipes as they are, on a small base and small adapters under the same names."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from peft import LoraConfig, get_peft_model
from support.checkpoints import VOCABULARY, write_tokenizer
from support.demo_recipes import run_recipes_in_forks
from transformers import LlamaConfig, LlamaForCausalLM

from mergekit_spectral.command_line.main import main
from mergekit_spectral.demo import MODEL_NAME, base_model, run
from mergekit_spectral.demo.recipes import ADAPTERS, METHODS, recipe_folder, tune_recipe
from mergekit_spectral.demo.run import TUNED
from mergekit_spectral.errors import MergeError


@pytest.fixture(scope="module")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder / MODEL_NAME)
    write_tokenizer(folder / MODEL_NAME)
    for name in ADAPTERS:
        base = LlamaForCausalLM.from_pretrained(folder / MODEL_NAME, dtype=torch.float32)
        lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        get_peft_model(base, lora).save_pretrained(folder / "adapters" / name)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_recipe_merges(method: str, work_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(work_folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = yaml.safe_load((recipe_folder() / f"{method}.yml").read_text())
    options = MergeOptions(lora_merge_cache="copies", quiet=True, write_model_card=False)
    out = work_folder / "merged" / method
    run_merge(MergeConfiguration.model_validate(recipe), str(out), options)

    base = LlamaForCausalLM.from_pretrained(MODEL_NAME, dtype="auto").state_dict()
    merged = LlamaForCausalLM.from_pretrained(out, dtype="auto").state_dict()
    assert all(tensor.dtype == torch.bfloat16 for tensor in merged.values())
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name for name in base if name.endswith("_proj.weight")}


def test_tuning_reads_the_examples_and_merges(work_folder: Path, monkeypatch: pytest.MonkeyPatch):
    run_recipes_in_forks(monkeypatch)
    out, merged = work_folder / "tuned", work_folder / "merged" / "tuned"
    tune_recipe(recipe_folder() / f"{TUNED}.yml", ("iso",), out, merged, work_folder)
    found = json.loads((out / "report.json").read_text())
    assert found["sets"] == list(ADAPTERS)
    assert found["examples"] == [[20, 20]] * len(ADAPTERS)
    methods = {one["name"].split()[0] for one in found["searched"]}
    assert methods == {TUNED, "iso"}
    assert found["chosen"] in {one["name"] for one in found["results"]}
    LlamaForCausalLM.from_pretrained(merged)


class StoppedError(Exception):
    pass


class Watched:
    """Notes the titles of the demo's steps, and stops it at one of them."""

    def __init__(self, stop: str):
        self.titles: list[str] = []
        self._stop = stop

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        if title == self._stop:
            raise StoppedError
        self.titles.append(title)
        yield


@pytest.fixture
def small_demo(work_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a demo on the small base and adapters."""
    recipes = tmp_path / "recipes"
    shutil.copytree(recipe_folder(), recipes, ignore=shutil.ignore_patterns("adapters"))
    shutil.copytree(work_folder / "adapters", recipes / "adapters")
    monkeypatch.setattr(run, "recipe_folder", lambda: recipes)
    run_recipes_in_forks(monkeypatch)
    demo = tmp_path / "demo"
    shutil.copytree(work_folder / MODEL_NAME, demo / MODEL_NAME)  # where it is looked for first
    return demo


def test_a_demo_that_was_stopped_continues(small_demo: Path):
    first = Watched(stop="accuracy of ties")
    with pytest.raises(StoppedError):
        run.run_demo(small_demo, first.step)
    assert first.titles[-2:] == ["accuracy of the adapter sentiment", "mergekit-yaml ties.yml"]
    merged = (small_demo / "merged" / "ties" / "config.json").stat()

    second = Watched(stop="mergekit-yaml knots_ties.yml")
    with pytest.raises(StoppedError):
        run.run_demo(small_demo, second.step)
    before = [f"{title}, done before" for title in first.titles[1:]]
    assert second.titles == [first.titles[0], *before, "accuracy of ties"]
    assert (small_demo / "merged" / "ties" / "config.json").stat() == merged

    # A merge of which nothing is left is merged again, and what was scored is not.
    shutil.rmtree(small_demo / "merged")
    third = Watched(stop="mergekit-yaml knots_ties.yml")
    with pytest.raises(StoppedError):
        run.run_demo(small_demo, third.step)
    assert third.titles[-2:] == ["mergekit-yaml ties.yml", "accuracy of ties, done before"]


def test_a_demo_of_other_recipes_starts_over(small_demo: Path, monkeypatch: pytest.MonkeyPatch):
    for change in ("lambda: 1.0", "lambda: 2.0"):
        path = run.recipe_folder() / "iso.yml"
        path.write_text(path.read_text().replace("lambda: 1.0", change))
        watched = Watched(stop="accuracy of the adapter numbers")
        with pytest.raises(StoppedError):
            run.run_demo(small_demo, watched.step)
        assert watched.titles[-1] == "accuracy of the base"


def test_base_only_keeps_a_model_that_is_there(small_demo: Path):
    result = CliRunner().invoke(main, ["demo", "--base-only", "--work-dir", str(small_demo)])
    assert result.exit_code == 0, result.output
    assert result.output == f"{small_demo / MODEL_NAME}\n"
    quiet = CliRunner().invoke(main, ["demo", "--base-only", "--work-dir", str(small_demo), "-q"])
    assert quiet.output == ""


def test_a_base_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Path) -> None:
        raise MergeError("no network")

    monkeypatch.setattr(base_model, "find_gguf", fail)
    with pytest.raises(MergeError, match="no network"):
        base_model.prepare_base_model(tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert not (tmp_path / MODEL_NAME).exists()
